/** From grey levels to colours: black and white point, gamma and a colour map, as a table of 256 colours. */

// Anchors of the maps at equal distances; between them colours are mixed.
const MAPS = {
  grey: ["#000000", "#ffffff"],
  inverted: ["#ffffff", "#000000"],
  viridis: ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"],
  inferno: ["#000004", "#1f0c48", "#550f6d", "#88226a", "#ba3655", "#e35933", "#f98c0a", "#f9c932", "#fcffa4"],
  cividis: ["#00224e", "#1d3a6e", "#434e6c", "#62636e", "#7d7c78", "#9a9577", "#b9b06c", "#dacc58", "#fee838"],
};

/** Names of the colour maps. */
export const maps = Object.keys(MAPS);

/** @typedef {{black: number, white: number, gamma: number, map: string}} Tones black and white in 0..255 */

/** @type {Tones} */
export const plain = { black: 0, white: 255, gamma: 1, map: "grey" };

/**
 * @param {Tones} tones
 * @returns {Uint32Array} (256,) colours as pixels of an ImageData
 */
export function table({ black, white, gamma, map }) {
  const anchors = (MAPS[map] ?? MAPS.grey).map(channels);
  return Uint32Array.from({ length: 256 }, (_, level) => {
    const share = Math.min(Math.max((level - black) / Math.max(white - black, 1), 0), 1) ** (1 / gamma);
    return mix(anchors, share);
  });
}

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

function mix(anchors, share) {
  const at = share * (anchors.length - 1);
  const lower = Math.min(Math.floor(at), anchors.length - 2);
  const [red, green, blue] = anchors[lower].map((from, k) =>
    Math.round(from + (anchors[lower + 1][k] - from) * (at - lower)),
  );
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little endian, as all that run browsers are
}
