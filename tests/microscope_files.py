"""Small files in the formats of microscopes, for the tests: DM3, DM4, SER, EMI, MRC, EMD, HSPY, ZSPY, MIB and BLO."""

import json
import struct
import warnings
from pathlib import Path

import h5py
import numpy as np

DM_DATA_TYPES = {"int16": 1, "float32": 2, "uint8": 6, "int32": 7, "uint16": 10, "uint32": 11, "float64": 12}
DM_ARRAY_TYPES = {"int16": 2, "int32": 3, "uint16": 4, "uint32": 5, "float32": 6, "float64": 7, "uint8": 10}
SER_DATA_TYPES = {"uint8": 1, "uint16": 2, "uint32": 3, "int16": 5, "int32": 6, "float32": 7, "float64": 8}
MRC_MODES = {"int8": 0, "int16": 1, "float32": 2, "uint16": 6}


def write_dm(path: Path, images: list[dict], version: int, *, thumbnails: tuple[int, ...] = ()) -> None:
    """Write DM3 or DM4; an image has data, scale (row, column), units, tags, name; thumbnails are such by index."""

    def word(value: int) -> bytes:
        return struct.pack(">q" if version == 4 else ">i", value)

    def tag(name: str, value: object) -> bytes:
        encoded = name.encode("latin-1")
        if isinstance(value, dict):
            kind, body = 20, group(value)
        else:
            kind, body = 21, leaf(value)
        size = word(len(body)) if version == 4 else b""
        return struct.pack(">BH", kind, len(encoded)) + encoded + size + body

    def group(tags: dict) -> bytes:
        # A name that starts with "#" stands for an unnamed entry.
        entries = [tag("" if name.startswith("#") else name, value) for name, value in tags.items()]
        return struct.pack(">BB", 0, 1) + word(len(tags)) + b"".join(entries)

    def leaf(value: object) -> bytes:
        if isinstance(value, np.ndarray):
            kind = DM_ARRAY_TYPES[value.dtype.name]
            content = value.astype(value.dtype.newbyteorder("<")).tobytes()
            return b"%%%%" + word(3) + word(20) + word(kind) + word(value.size) + content
        if isinstance(value, str):
            content = value.encode("utf-16-le")
            return b"%%%%" + word(3) + word(20) + word(4) + word(len(value)) + content
        kind, code = (7, "<d") if isinstance(value, float) else (3, "<i")
        return b"%%%%" + word(1) + word(kind) + struct.pack(code, value)

    def image(content: dict) -> dict:
        data = content["data"]
        scales = content.get("scale", (0.02,) * data.ndim)
        units = content.get("units", "nm")
        calibration = [
            {"Origin": 0.0, "Scale": float(scale), "Units": units} for scale in reversed(scales)
        ]  # columns first
        return {
            "ImageData": {
                "Calibrations": {
                    "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
                    "Dimension": {f"#{i}": entry for i, entry in enumerate(calibration)},
                },
                "Data": data.ravel(),
                "DataType": DM_DATA_TYPES[data.dtype.name],
                "Dimensions": {f"#{i}": size for i, size in enumerate(reversed(data.shape))},
                "PixelDepth": data.dtype.itemsize,
            },
            "ImageTags": content.get("tags", {}),
            "Name": content.get("name", ""),
        }

    tags = {"ImageList": {f"#{i}": image(content) for i, content in enumerate(images)}}
    if thumbnails:
        tags["Thumbnails"] = {f"#{i}": {"ImageIndex": index} for i, index in enumerate(thumbnails)}
    root = group(tags)
    path.write_bytes(struct.pack(">i", version) + word(len(root) + 16) + struct.pack(">i", 1) + root + bytes(8))


def write_ser(path: Path, data: np.ndarray, scale: tuple[float, float]) -> None:
    """Write one image as SER, version 0x210; scale in metres along rows and columns."""
    header = struct.pack("<HHH", 0x4949, 0x0197, 0x0210)
    header += struct.pack("<IIII", 0x4122, 0x4152, 1, 1)
    dimension = struct.pack("<IddI", 1, 0.0, 1.0, 0) + struct.pack("<I", 6) + b"Number" + struct.pack("<I", 0)
    offset_array = 30 + len(dimension)
    header += struct.pack("<II", offset_array, 1) + dimension
    data_offset = offset_array + 8
    body = struct.pack("<ddI", 0.0, scale[1], 0) + struct.pack("<ddI", 0.0, scale[0], 0)
    body += struct.pack("<HII", SER_DATA_TYPES[data.dtype.name], data.shape[1], data.shape[0])
    body += data[::-1].astype(data.dtype.newbyteorder("<")).tobytes()  # SER stores the bottom row first
    tag_offset = data_offset + len(body)
    path.write_bytes(header + struct.pack("<II", data_offset, tag_offset) + body + struct.pack("<HHI", 0x4152, 0, 0))


def write_emi(path: Path, high_tension: float, data: np.ndarray, scale: tuple[float, float]) -> None:
    """Write an EMI file and the SER file it belongs to."""
    write_ser(path.with_name(f"{path.stem}_1.ser"), data, scale)
    entry = "<Data><Label>{}</Label><Value>{}</Value><Unit>{}</Unit></Data>"
    description = entry.format("High tension", high_tension, "kV") + entry.format("Mode", "STEM nP SA Zoom Image", "")
    path.write_text(
        "binary\n<ObjectInfo><AcquireDate>Tue Nov 22 15:21:10 2022</AcquireDate><ExperimentalDescription><Root>"
        f"{description}</Root></ExperimentalDescription></ObjectInfo>\nbinary"
    )


def write_mrc(path: Path, data: np.ndarray, cell: tuple[float, float]) -> None:
    """Write MRC2014; cell is the size of the image in Å along rows and columns."""
    stack = data if data.ndim == 3 else data[None]
    sections, rows, columns = stack.shape
    size = (columns, rows, sections)
    header = struct.pack("<10i", *size, MRC_MODES[data.dtype.name], 0, 0, 0, *size)
    header += struct.pack("<6f3i", cell[1], cell[0], float(sections), 90, 90, 90, 1, 2, 3)
    header = header.ljust(208, b"\0") + b"MAP \x44\x44\0\0"
    path.write_bytes(header.ljust(1024, b"\0") + stack.tobytes())


def write_velox(
    path: Path,
    images: dict[str, np.ndarray],
    scale: float,
    voltage: float,
    *,
    angles: dict[str, tuple[float, float]] | None = None,
    spectra: bool = False,
    integrated: bool = False,
) -> None:
    """Write a Velox EMD file.

    Images, (H, W) or (T, H, W), by name of the detector; scale in metres, voltage in V, angles in rad; spectra as a map
    beside the images; integrated for images that Velox made of frames it aligned.
    """
    with h5py.File(path, "w") as file:
        file["Version"] = np.array([json.dumps({"format": "Velox", "version": "7"}).encode()])
        operations = {}
        detectors = {}
        for j, name in enumerate(images):
            begin, end = (angles or {}).get(name, (0, 0))
            limits = {"begin": str(begin), "end": str(end)}
            detectors[f"Detector-{j}"] = {"DetectorName": name, "CollectionAngleRange": limits}
        for i, (detector, data) in enumerate(images.items()):
            key = f"{i:032x}"
            frames = data if data.ndim == 3 else data[None]
            group = file.create_group(f"Data/Image/{key}")
            group.create_dataset("Data", data=np.moveaxis(frames, 0, 2), chunks=(*data.shape[-2:], 1))
            metadata = {
                "BinaryResult": {
                    "PixelSize": {"height": str(scale), "width": str(scale)},
                    "Offset": {"x": "0", "y": "0"},
                    "PixelUnitX": "m",
                    "PixelUnitY": "m",
                    "DetectorIndex": str(i),
                    "Detector": detector,
                },
                "Optics": {"AccelerationVoltage": str(voltage)},
                "Detectors": detectors,
                "Scan": {"FrameTime": "0.5"},
                "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1669130470"}},
                "Core": {"MetadataDefinitionVersion": "7.9"},
                "Instrument": {"InstrumentClass": "Titan"},
            }
            encoded = np.frombuffer(json.dumps(metadata).encode().ljust(4000, b"\0"), dtype=np.uint8)
            group["Metadata"] = encoded[:, None]
            operations[key] = {"detector": detector, "dataPath": f"/Data/Image/{key}"}
        for key, operation in operations.items():
            kind = "IntegrationOperation" if integrated else "StemInputOperation"
            file[f"Operations/{kind}/{key}"] = np.array([json.dumps(operation).encode()])
        if spectra:
            file.create_group("Data/SpectrumImage")
            file.create_group("Presentation/Displays/ImageDisplay")


def write_py4dstem(path: Path, data: np.ndarray, image: np.ndarray, pattern: np.ndarray, sampling: float) -> None:
    """Write an EMD 1.0 file: a 4D-STEM data set and, within it, a dark-field image and a mean diffraction pattern."""

    def array(parent: h5py.Group, name: str, content: np.ndarray, units: tuple[str, ...]) -> h5py.Group:
        group = parent.create_group(name)
        group.attrs.update(emd_group_type="array", python_class="Array")
        group["data"] = content
        for i, (size, unit) in enumerate(zip(content.shape, units, strict=True)):
            group[f"dim{i}"] = sampling * np.arange(size)
            group[f"dim{i}"].attrs.update(name="RQ"["^" in unit] + "xy"[i % 2], units=unit)
        return group

    with h5py.File(path, "w") as file:
        file.attrs.update(emd_group_type="file", version_major=1, version_minor=0, authoring_program="py4DSTEM")
        root = file.create_group("scan_root")
        root.attrs.update(emd_group_type="root", python_class="Root")
        scan = array(root, "scan", data, ("A", "A", "A^-1", "A^-1"))
        array(scan, "annular_dark_field", image, ("A", "A"))
        array(scan, "dp_mean", pattern, ("A^-1", "A^-1"))


def write_signal(
    path: Path,
    data: np.ndarray,
    *,
    scale: float | tuple[float, ...] = 0.02,
    units: str | tuple[str, ...] = "nm",
    metadata: dict | None = None,
) -> None:
    """Write data with the writer that rosettasciio has for the suffix; scale and units of all axes or of each."""
    from rsciio import emd, hspy, tiff

    scales = scale if isinstance(scale, tuple) else (scale,) * data.ndim
    unit_of = units if isinstance(units, tuple) else (units,) * data.ndim
    common = {"_type": "UniformDataAxis", "offset": 0.0, "is_binned": False}
    axes = [
        common
        | {"name": "utyx"[i - data.ndim], "size": size, "index_in_array": i, "navigate": i < data.ndim - 2}
        | {"scale": scales[i], "units": unit_of[i]}
        for i, size in enumerate(data.shape)
    ]
    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "HAADF"}, "Signal": {"signal_type": ""}} | (metadata or {}),
        "original_metadata": {},
        "learning_results": {},
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "", "package_version": ""},
        "tmp_parameters": {},
        "models": {},
    }
    writer = {".hspy": hspy, ".emd": emd, ".tif": tiff}[path.suffix].file_writer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer(str(path), signal)


def write_zspy(path: Path, data: np.ndarray, **options) -> None:
    """Write the tree of an HSPY file as Zarr, which makes it ZSPY."""
    import zarr

    hspy = path.with_suffix(".written.hspy")
    write_signal(hspy, data, **options)

    def plain(value):
        return value.decode() if isinstance(value, bytes) else getattr(value, "tolist", lambda: value)()

    items = []
    with h5py.File(hspy) as file:  # read before Zarr's threads start, as HDF5 holds a lock meanwhile
        file.visititems(lambda *entry: items.append(entry))
        contents = [item[()] if isinstance(item, h5py.Dataset) else None for _, item in items]
        described = [(name, content, dict(item.attrs)) for (name, item), content in zip(items, contents, strict=True)]
        attributes = dict(file.attrs)
    root = zarr.open_group(path, mode="w")
    root.attrs.update({key: plain(value) for key, value in attributes.items()} | {"file_format": "ZSpy"})
    for name, content, attributes in described:
        made = root.require_group(name) if content is None else root.create_array(name, data=np.asarray(content))
        made.attrs.update({key: plain(value) for key, value in attributes.items()})
    hspy.unlink()


def write_mib(path: Path, data: np.ndarray, *, header: int = 384, description: bool = False) -> None:
    """Write a scan, (sy, sx, ky, kx), as Merlin's frames; on demand with the description that goes with them."""
    rows, columns, high, wide = data.shape
    depth = {1: "U08", 2: "U16", 4: "U32"}[data.dtype.itemsize]
    with path.open("wb") as file:
        for number, pattern in enumerate(data.reshape(-1, high, wide), 1):
            said = f"MQ1,{number:06},{header:05},{4 if header > 384 else 1:02},{wide:04},{high:04},{depth},   1x1,01,"
            said += "2022-11-22 15:21:10.000000,0.001,0,0,0,1.2E+2,2022-11-22T15:21:10.000000000Z,1000000ns,12,"
            file.write(said.encode().ljust(header, b"\0") + pattern.astype(pattern.dtype.newbyteorder(">")).tobytes())
    if description:
        path.with_suffix(".hdr").write_text(
            "HDR,\t\nTime and Date Stamp (day, mnth, yr, hr, min, s):\t22/11/2022 15:21:10\n"
            f"Frames in Acquisition (Number):\t{rows * columns}\nFrames per Trigger (Number):\t{columns}\nEnd\t"
        )


def write_blo(path: Path, data: np.ndarray) -> None:
    """Write a scan of 8 bit as blockfile: 0.02 nm from position to position, 80 kV."""
    from rsciio import blockfile

    scales = (0.02, 0.02, 1.0, 1.0)
    axes = [
        {"name": "yx"[i % 2], "size": size, "index_in_array": i, "navigate": i < 2, "offset": 0.0}
        | {"scale": scales[i], "units": "nm" if i < 2 else "cm"}
        for i, size in enumerate(data.shape)
    ]
    signal = {"data": data, "axes": axes, "metadata": {}, "original_metadata": {}, "attributes": {"_lazy": False}}
    blockfile.file_writer(str(path), signal, navigator=np.zeros(data.shape[:2]), show_progressbar=False)
    content = bytearray(path.read_bytes())
    content[46:50] = struct.pack("<I", 80_000)
    path.write_bytes(content)
