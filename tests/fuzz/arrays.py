"""Arrays with everything wrong that can be: dtypes, shapes, strides, values."""

from __future__ import annotations

from typing import Any

import numpy as np

from fuzz.draw import Draw

DTYPES = (
    *("float32", "float64", "float32", "float64", "float16", "longdouble", ">f4", ">f8", "int8", "uint8", "int16"),
    *("uint16", "int32", "uint32", "int64", "uint64", "bool", "complex64", "U2", "S3", "M8[s]", "O", "f4,i4"),
)
SIDES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 33)
FLOATS = ("float32", "float64")


def array(draw: Draw, *shape: int | None, dtype: Any = None) -> Any:
    """Return an array of a shape, None for any extent, and a dtype; once in a few of another one, or no array."""
    if draw.chance(24):
        return draw.value()
    extents = [draw.choice(SIDES) if extent is None else extent for extent in shape]
    if draw.chance(16):
        extents = [draw.choice(SIDES) for _ in range(draw.below(5))]
    while np.prod(extents) > 1 << 14:
        extents[int(np.argmax(extents))] //= 2
    kind = np.dtype(draw.choice(DTYPES) if dtype is None or draw.chance(16) else dtype)
    chance = np.random.default_rng(draw.below(256))
    values = chance.normal(0.0, draw.choice((1.0, 1.0, 30.0, 1e9, 1e300)), extents)
    if values.size and draw.chance(4):
        values.flat[chance.integers(0, values.size, 1 + values.size // 8)] = draw.real()
    with np.errstate(all="ignore"):
        if kind.names or kind.kind in "USMO":
            made = np.zeros(extents, kind)
        else:
            made = np.nan_to_num(values).astype(kind) if kind.kind in "iub" else values.astype(kind)
    return strided(draw, made)


def strided(draw: Draw, values: Any) -> Any:
    """Return the same values, laid out in another way."""
    kind = draw.below(12)
    if kind == 1:
        return np.asfortranarray(values)
    if kind == 2:
        return values[::-1] if values.ndim else values
    if kind == 3:
        wide = np.zeros((*values.shape[:-1], 2 * values.shape[-1]) if values.ndim else (), values.dtype)
        if values.ndim:
            wide[..., ::2] = values
            return wide[..., ::2]
    if kind == 4 and values.dtype.kind != "O":  # not aligned to its items
        raw = np.zeros(values.nbytes + 1, np.uint8)[1:].view(values.dtype).reshape(values.shape)
        raw[...] = values
        return raw
    if kind == 5 and values.ndim:
        return np.broadcast_to(values[:1], values.shape) if values.shape[0] else values
    if kind == 6:
        values.setflags(write=False)
    if kind == 7 and values.ndim == 2:
        return np.ma.masked_array(values)
    if kind == 8 and values.ndim == 2 and values.dtype.kind in "fiu":
        return values.view(np.matrix)
    if kind == 9:
        # strides that are no multiple of the item
        fields = np.zeros(
            values.shape,
            np.dtype({"names": ["v"], "formats": [values.dtype], "offsets": [1], "itemsize": values.itemsize + 3}),
        )
        fields["v"] = values
        return fields["v"]
    return values


def positions(draw: Draw, count: int | None = None) -> Any:
    """Return positions (N, 2), inside and outside of an image."""
    if draw.chance(8):
        return array(draw, count, 2)
    n = draw.below(6) if count is None else count
    where = [[draw.real() if draw.chance(4) else draw.below(80) / 4 for _ in "rc"] for _ in range(n)]
    return strided(draw, np.array(where, np.float64).reshape(-1, 2))


def threads(draw: Draw) -> Any:
    return draw.choice((0, 1, 1, 2, 3, draw.integer() if draw.chance(4) else 1, draw.value() if draw.chance(8) else 1))
