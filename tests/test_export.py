"""Exports of a classification, each opened by the program it is meant for."""

import json
import sys
from dataclasses import dataclass, field, fields, replace

import ase.io
import emdfile
import h5py
import hyperspy.api as hs
import numpy as np
import pandas
import pytest
from classified import classification, posterior
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyarrow import parquet
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

import contextem as ctm
from contextem.classification import Classification
from contextem.columns import CLASSES
from contextem.micrograph import ReadError
from contextem.simulate.conditions import REFERENCE
from contextem.simulate.dataset import simulate_micrograph
from contextem.simulate.multislice import scan_probes
from contextem.views import COLOURS

METAL, DOPANT, X2, SINGLE_VACANCY, DOUBLE_VACANCY = range(5)
LABELS = [METAL] * 40 + [DOPANT] * 10 + [X2] * 45 + [SINGLE_VACANCY] * 4 + [DOUBLE_VACANCY]
CONTEXT = ctm.Context("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200))
WRITERS = ("to_csv", "to_parquet", "to_json", "to_hdf5", "to_hspy", "to_emd")


@pytest.fixture
def micrograph():
    data = np.random.default_rng(1).integers(0, 2**16, (100, 120), dtype=np.uint16)
    return ctm.Micrograph(data, 0.2, 80e3, "HAADF", source="WSe2_7.dm3")


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    return classification(
        rng.uniform((0, 0), (99, 119), (100, 2)),
        posterior(LABELS),
        observed=np.arange(100) != 99,
        familiarity=rng.normal(size=100).astype("f4"),
        sublattice=rng.integers(-1, 2, 100).astype("i1"),
        grain=rng.integers(-1, 3, 100).astype("i4"),
        unknown=np.isin(np.arange(100), (5, 40, 41)),
        contaminated=np.isin(np.arange(100), (5, 6)),
        provenance={
            "context": CONTEXT.to_dict(),
            "better_context": None,
            "micrograph": {"source": "WSe2_7.dm3", "µ": "Å"},
            "notes": [{"n": 1}, "a", None, 0.1, True],
            "nothing": [],
        },
    )


@pytest.fixture
def empty():
    return classification(np.zeros((0, 2)), np.zeros((0, 5)), provenance={"context": CONTEXT.to_dict()})


def write(result, writer, path, micrograph, **options):
    arguments = (micrograph,) if writer in ("to_hspy", "to_emd") else ()
    getattr(result, writer)(path, *arguments, **options)


def assert_same(a, b):
    for each in fields(a):
        one, other = getattr(a, each.name), getattr(b, each.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype
            assert one.shape == other.shape
            assert one.tobytes() == other.tobytes()
        else:
            assert (type(one), one) == (type(other), other)


# what all writers keep to


@pytest.mark.parametrize("writer", WRITERS)
def test_an_existing_file_is_replaced_or_kept_as_told(writer, result, micrograph, tmp_path):
    path = tmp_path / "new" / "a.hspy"
    write(result, writer, path, micrograph, overwrite=False)
    path.write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        write(result, writer, path, micrograph, overwrite=False)
    assert path.read_text() == "mine"
    write(result, writer, path, micrograph)
    assert path.read_bytes() != b"mine"
    assert list(path.parent.iterdir()) == [path]


FAILING = {
    "to_csv": "contextem.export.tables.range",
    "to_parquet": "pyarrow.parquet.write_table",
    "to_json": "pathlib.Path.write_text",
    "to_hdf5": "h5py.Group.__setitem__",
    "to_hspy": "h5py.Dataset.write_direct",
    "to_emd": "h5py.Group.__setitem__",
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("when", ["midway", "at the end"])
def test_a_failing_write_leaves_nothing_new_and_keeps_the_old(writer, when, result, micrograph, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    path = tmp_path / "a.hspy"
    path.write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(FAILING[writer] if when == "midway" else "contextem._output.os.replace", fail, raising=False)
        with pytest.raises(OSError, match="no space left"):
            write(result, writer, path, micrograph)
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", ["to_parquet", "to_json", "to_hdf5", "to_emd"])
def test_provenance_that_json_cannot_tell_leaves_nothing(writer, result, micrograph, tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        write(replace(result, provenance={"bad": object()}), writer, tmp_path / "a", micrograph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", ["to_hspy", "to_emd"])
@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ctm.Micrograph(np.eye(100, 120), 0.21), id="sampling"),
        pytest.param(ctm.Micrograph(np.eye(120, 100), 0.2), id="turned"),
    ],
)
def test_another_micrograph_is_refused(writer, other, result, tmp_path):
    with pytest.raises(ValueError, match=r"micrograph: expected the one that was classified, of 0\.2 Å/px"):
        write(result, writer, tmp_path / "a.hspy", other)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_no_columns_make_a_file_too(writer, empty, micrograph, tmp_path):
    path = tmp_path / "a.hspy"
    write(empty, writer, path, micrograph)
    if writer == "to_parquet":
        assert parquet.read_table(path).num_rows == 0
    if writer == "to_hdf5":
        assert_same(Classification.load(path), empty)
    if writer == "to_hspy":
        assert "Markers" not in hs.load(path).metadata or len(hs.load(path).metadata.Markers) == 0
    if writer == "to_emd":
        assert len(emdfile.read(path).tree("columns")) == 0


@pytest.mark.parametrize(
    ("method", "package", "extra"), [("to_parquet", "pyarrow", "parquet"), ("to_ase", "ase", "simulate")]
)
def test_a_missing_package_is_named_with_its_extra(method, package, extra, result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    arguments = () if method == "to_ase" else (tmp_path / "a",)
    with pytest.raises(ModuleNotFoundError, match=rf"{package}: is not installed.*contextem\[{extra}\]"):
        getattr(result, method)(*arguments)


# tables


@dataclass(frozen=True)
class Longer(Classification):
    """A classification with fields that may come one day."""

    strain: np.ndarray = field(default_factory=lambda: np.linspace(0, 1, 100))
    tensor: np.ndarray = field(default_factory=lambda: np.zeros((100, 2, 2)))
    name: str = "one"
    absent: np.ndarray | None = None


@pytest.fixture
def longer(result):
    return Longer(**{each.name: getattr(result, each.name) for each in fields(result)})


def test_the_table_holds_every_array_of_one_value_a_column(longer):
    table = longer.table()
    assert {values.shape for values in table.values()} == {(100,)}
    arrays = {each.name for each in fields(longer) if np.shape(getattr(longer, each.name)) == (100,)}
    assert arrays <= set(table)
    assert list(table)[-1] == "strain"
    assert table["class"].tolist() == [CLASSES[i] for i in LABELS]
    np.testing.assert_array_equal(table["probability"], np.float32(0.8))


def test_text_and_parquet_say_the_same(longer, tmp_path):
    longer.to_csv(tmp_path / "a.csv")
    longer.to_parquet(tmp_path / "a.parquet")
    text, typed = pandas.read_csv(tmp_path / "a.csv"), pandas.read_parquet(tmp_path / "a.parquet")
    assert list(text) == list(typed) == list(longer.table())
    for name, values in longer.table().items():
        if values.dtype.kind == "U":
            assert text[name].tolist() == typed[name].tolist() == values.tolist()
        else:
            np.testing.assert_array_equal(typed[name], values, strict=True)
            decimals = {"row": 3, "column": 3, "familiarity": 3}.get(name, 5) if values.dtype.kind == "f" else 9
            np.testing.assert_allclose(text[name], values.astype("f8"), rtol=0, atol=0.501 * 10.0**-decimals)


def test_the_types_units_and_summary_of_parquet(result, tmp_path):
    result.to_parquet(tmp_path / "a.parquet")
    schema = parquet.read_schema(tmp_path / "a.parquet")
    assert {name: str(schema.field(name).type) for name in ("row", "X2", "unknown", "sublattice", "grain")} == {
        "row": "double",
        "X2": "float",
        "unknown": "bool",
        "sublattice": "int8",
        "grain": "int32",
    }
    assert str(schema.field("class").type).startswith("dictionary<values=string")
    units = {each.name: each.metadata[b"unit"] for each in schema if each.metadata and b"unit" in each.metadata}
    assert units == {"row": b"px", "column": b"px", "entropy": b"bit"}
    assert json.loads(schema.metadata[b"contextem_summary"]) == result.summary()
    kinds = pandas.read_parquet(tmp_path / "a.parquet")["class"]
    assert kinds.value_counts().to_dict() == dict(zip(CLASSES, (40, 10, 45, 4, 1), strict=True))


def test_text_of_many_rows_is_that_of_each(result, tmp_path, monkeypatch):
    result.to_csv(tmp_path / "whole.csv")
    monkeypatch.setattr("contextem.export.tables._ROWS", 7)
    result.to_csv(tmp_path / "parts.csv")
    lines = (tmp_path / "whole.csv").read_text().splitlines()
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    row, column = result.positions[41]
    assert lines[42] == (
        f"{row:.3f},{column:.3f},dopant,0.80000,0.05000,0.80000,0.05000,0.05000,0.05000,{result.entropy[41]:.5f},"
        f"{result.familiarity[41]:.3f},1,1,1,0,{result.sublattice[41]},{result.grain[41]}"
    )


# HDF5


def test_everything_comes_back_from_hdf5(result, longer, tmp_path):
    result.to_hdf5(tmp_path / "a.h5")
    assert_same(Classification.load(tmp_path / "a.h5"), result)
    longer.to_hdf5(tmp_path / "b.h5")
    assert_same(Longer.load(tmp_path / "b.h5"), longer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    n=st.integers(0, 4),
    number=st.floats(allow_nan=False),
    provenance=st.dictionaries(st.text(), JSON, max_size=4),
    data=st.data(),
)
def test_any_classification_comes_back_from_hdf5(n, number, provenance, data, tmp_path_factory):
    arrays = {
        "positions": data.draw(hnp.arrays("f8", (n, 2))),
        "probabilities": data.draw(hnp.arrays("f4", (n, 5))),
        "familiarity": data.draw(hnp.arrays("f4", n)),
        "unknown": data.draw(hnp.arrays(bool, n)),
        "grain": data.draw(hnp.arrays("i4", n)),
    }
    one = classification(**arrays, sampling=number, provenance=provenance)
    path = tmp_path_factory.mktemp("any") / "a.h5"
    one.to_hdf5(path)
    assert_same(Classification.load(path), one)


def test_what_is_no_classification_is_told(result, longer, micrograph, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Classification.load(tmp_path / "a.h5")
    (tmp_path / "text.h5").write_text("columns")
    with pytest.raises(ReadError, match=r"text\.h5 cannot be read as HDF5"):
        Classification.load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["positions"] = result.positions
    with pytest.raises(ReadError, match=r"expected a contextem classification .* got other\.h5"):
        Classification.load(tmp_path / "other.h5")
    result.to_emd(tmp_path / "a.emd", micrograph)
    with pytest.raises(ReadError, match=r"expected a contextem classification .* got a\.emd"):
        Classification.load(tmp_path / "a.emd")
    longer.to_hdf5(tmp_path / "longer.h5")
    with pytest.raises(ReadError, match=r"another version of contextem.*'name', 'strain', 'tensor'"):
        Classification.load(tmp_path / "longer.h5")
    result.to_hdf5(tmp_path / "cut.h5")
    with h5py.File(tmp_path / "cut.h5", "a") as file:
        del file["grain"]
    with pytest.raises(ReadError, match=r"another version of contextem.*'grain'"):
        Classification.load(tmp_path / "cut.h5")
    whole = (tmp_path / "longer.h5").read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match=r"half\.h5 cannot be read as HDF5"):
        Classification.load(tmp_path / "half.h5")


def test_a_damaged_file_is_told_or_read(result, tmp_path):
    result.to_hdf5(tmp_path / "a.h5")
    whole = (tmp_path / "a.h5").read_bytes()
    told = 0
    for start in range(96, 1200, 16):  # past the superblock: the names and headers of the first objects
        (tmp_path / "b.h5").write_bytes(whole[:start] + bytes(16) + whole[start + 16 :])
        try:
            Classification.load(tmp_path / "b.h5")
        except ReadError:
            told += 1
    assert told > 10


# HyperSpy


def test_hyperspy_opens_a_calibrated_image(result, micrograph, tmp_path, caplog):
    result.to_hspy(tmp_path / "a.hspy", micrograph)
    signal = hs.load(tmp_path / "a.hspy")
    assert caplog.text == ""
    assert type(signal) is hs.signals.Signal2D
    np.testing.assert_array_equal(signal.data, micrograph.data, strict=True)
    x, y = signal.axes_manager.signal_axes
    assert (x.name, x.size, y.name, y.size) == ("x", 120, "y", 100)
    assert {(axis.scale, axis.offset, axis.units) for axis in (x, y)} == {(0.02, 0.0, "nm")}
    assert signal.metadata.General.title == "WSe2_7.dm3"
    assert signal.metadata.Acquisition_instrument.TEM.beam_energy == 80.0
    assert signal.metadata.Acquisition_instrument.TEM.Detector.as_dictionary() == CONTEXT.detector.to_dict()
    assert signal.original_metadata.contextem.counts.as_dictionary() == result.counts


def test_hyperspy_marks_the_columns_of_each_class(result, micrograph, tmp_path):
    result.to_hspy(tmp_path / "a.hspy", micrograph)
    markers = dict(hs.load(tmp_path / "a.hspy").metadata.Markers)
    assert set(markers) == {*CLASSES, "unknown", "contaminated"}
    groups = {name: (result.labels == i) & result.counted for i, name in enumerate(CLASSES)}
    groups |= {"unknown": np.isin(np.arange(100), (5, 40, 41)), "contaminated": np.arange(100) == 6}
    assert sum(len(marker.kwargs["offsets"]) for marker in markers.values()) == len(result)
    for name, chosen in groups.items():
        offsets = markers[name].kwargs["offsets"]
        np.testing.assert_allclose(offsets / 0.02, result.positions[chosen][:, [1, 0]], rtol=1e-12)
    colours = [markers[name].kwargs["edgecolors"] for name in (*CLASSES, "unknown", "contaminated")]
    assert tuple(colours[:5]) == COLOURS
    assert len(set(colours)) == 7


def test_hyperspy_draws_the_markers(result, micrograph, tmp_path):
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    result.to_hspy(tmp_path / "a.hspy", micrograph)
    signal = hs.load(tmp_path / "a.hspy")
    signal.plot()
    axes = signal._plot.signal_plot.ax
    axes.figure.canvas.draw()
    drawn = {tuple(each.get_edgecolor()[0]): each for each in axes.collections if len(each.get_offsets())}
    metals = drawn[tuple(plt.matplotlib.colors.to_rgba(COLOURS[0]))]
    assert len(metals.get_offsets()) == 38
    (extent,) = {
        round(float(np.ptp(t[0, 0] * metals.get_paths()[0].vertices[:, 0])), 6) for t in metals.get_transforms()
    }
    width = axes.transData.transform((1.0, 0.0))[0] - axes.transData.transform((0.0, 0.0))[0]
    assert extent / width == pytest.approx(0.8 * 0.332 / np.sqrt(3), rel=1e-3)  # nm across
    plt.close("all")


def test_contextem_reads_what_it_wrote_for_hyperspy(result, micrograph, tmp_path):
    result.to_hspy(tmp_path / "a.hspy", micrograph)
    again = ctm.read(tmp_path / "a.hspy")
    np.testing.assert_array_equal(again.data, micrograph.data, strict=True)
    assert again.sampling == pytest.approx(0.2, rel=1e-12)
    assert again.energy == 80e3


def test_contextem_reads_what_it_wrote_for_py4dstem(result, micrograph, tmp_path):
    result.to_emd(tmp_path / "a.emd", micrograph)
    again = ctm.read(tmp_path / "a.emd")
    np.testing.assert_array_equal(again.data, micrograph.data, strict=True)
    assert again.sampling == pytest.approx(0.2, rel=1e-12)


def test_hyperspy_takes_no_other_suffix(result, micrograph, tmp_path):
    with pytest.raises(ValueError, match=r"path: expected a name that ends with \.hspy, got '.*a\.h5'"):
        result.to_hspy(tmp_path / "a.h5", micrograph)


# EMD 1.0


def test_emdfile_opens_image_and_columns(result, micrograph, tmp_path):
    result.to_emd(tmp_path / "a.emd", micrograph)
    assert emdfile._get_EMD_version(tmp_path / "a.emd")[:2] == (1, 0)
    root = emdfile.read(tmp_path / "a.emd")
    image, columns = root.tree("micrograph"), root.tree("columns")
    assert (type(root), type(image), type(columns)) == (emdfile.Root, emdfile.Array, emdfile.PointList)
    np.testing.assert_array_equal(image.data, micrograph.data, strict=True)
    assert image.dim_names == ("row", "column")
    assert image.dim_units == ("A", "A")
    np.testing.assert_allclose(image.dims[0], 0.2 * np.arange(100))
    np.testing.assert_allclose(image.dims[1], 0.2 * np.arange(120))
    assert columns.fields == tuple(result.table())
    for name, values in (result.table() | {"class": result.labels.astype("i1")}).items():
        np.testing.assert_array_equal(columns[name], values, strict=True)


def test_emdfile_reads_the_metadata(result, micrograph, tmp_path):
    result.to_emd(tmp_path / "a.emd", micrograph)
    root = emdfile.read(tmp_path / "a.emd")
    summary = root.metadata["summary"]._params
    expected = result.summary()
    assert json.loads(summary.pop("notes")) == expected.pop("notes")
    assert summary == expected
    meaning = root.tree("columns").metadata["meaning"]._params
    assert meaning == {"units": {"row": "px", "column": "px", "entropy": "bit"}, "classes": list(CLASSES)}
    recording = root.tree("micrograph").metadata["recording"]._params
    assert recording == {"source": "WSe2_7.dm3", "energy": 80e3, "detector": CONTEXT.detector.to_dict()}


def test_emd_is_laid_out_as_emdfile_lays_it_out(result, micrograph, tmp_path):
    result.to_emd(tmp_path / "a.emd", micrograph)
    emdfile.save(tmp_path / "b.emd", emdfile.read(tmp_path / "a.emd"))

    def layout(path):
        found = {}

        def note(name, item):
            attributes = {key: str(value) for key, value in item.attrs.items()}
            shape = (item.shape, item.dtype.kind) if isinstance(item, h5py.Dataset) else None
            found[name] = attributes, shape

        with h5py.File(path) as file:
            file.visititems(note)
            return found, set(file.attrs)

    ours, theirs = layout(tmp_path / "a.emd"), layout(tmp_path / "b.emd")
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    for name, expected in theirs[0].items():
        assert ours[0][name] == expected, name


# atoms


@pytest.fixture(scope="module")
def simulated():
    made = simulate_micrograph(
        "MoS2",
        "V",
        80e3,
        ctm.Detector("HAADF", 70, 200),
        3,
        ranges=REFERENCE,
        sampling=0.2,
        dose=1e5,
        dopant_fraction=0.2,
        vacancy_fraction=0.3,
        carbon=0.0,
        haze=0.0,
    )
    truth = classification(
        made.columns.positions,
        posterior(made.labels),
        sampling=made.micrograph.sampling,
        lattice_constant=made.context.lattice_constant,
        provenance={"context": made.context.to_dict()},
    )
    return made, truth


def test_the_atoms_are_those_of_the_truth(simulated):
    made, truth = simulated
    atoms = truth.to_ase()
    counts = np.bincount(made.labels, minlength=5)
    assert counts.min() > 0
    symbols = np.array(atoms.get_chemical_symbols())
    assert [np.sum(symbols == each) for each in ("Mo", "V", "S")] == [counts[0], counts[1], 2 * counts[2] + counts[3]]
    pixels = (atoms.positions[:, :2] - atoms.info["origin"]) / made.micrograph.sampling
    np.testing.assert_allclose(pixels, made.columns.positions[atoms.arrays["column"]], atol=1e-9)
    # where the layer that was rendered has its atoms: drift and disorder apart
    scene = made.scene
    distance, nearest = cKDTree(scene.layer.sites[scene.inside]).query(atoms.positions[:, :2] - atoms.info["origin"])
    np.testing.assert_array_equal(scene.layer.labels[scene.inside][nearest], atoms.get_tags())
    assert np.median(distance) < 0.5
    np.testing.assert_array_equal(atoms.get_tags(), made.labels[atoms.arrays["column"]])
    np.testing.assert_array_equal(atoms.arrays["class_probability"], np.float32(0.8))
    assert not atoms.pbc.any()


def test_heights_are_those_of_the_monolayer(simulated):
    made, truth = simulated
    atoms, t = truth.to_ase(), made.context.thickness
    z = atoms.positions[:, 2]
    heights = {
        symbol: set(np.round(z[np.array(atoms.get_chemical_symbols()) == symbol] / t, 6)) for symbol in ("Mo", "V", "S")
    }
    assert heights == {"Mo": {0.75}, "V": {0.75}, "S": {0.25, 1.25}}
    assert set(np.round(z[atoms.get_tags() == SINGLE_VACANCY] / t, 6)) == {0.25}
    assert atoms.cell.lengths()[2] == pytest.approx(1.5 * t)
    low, high = atoms.positions.min(axis=0), atoms.cell.lengths() - atoms.positions.max(axis=0)
    assert (np.minimum(low, high) >= (5 - 1e-9, 5 - 1e-9, 0.25 * t - 1e-9)).all()
    truth_of_image = np.ptp(made.columns.positions, axis=0) * made.micrograph.sampling + 2 * 7.5
    np.testing.assert_allclose(truth.to_ase(vacuum=7.5).cell.lengths()[:2], truth_of_image)


def test_projected_atoms_look_like_the_micrograph(simulated):
    """Rutherford scattering of each atom, blurred by the probe; any other orientation looks unlike it."""
    made, truth = simulated
    atoms = truth.to_ase()
    shape = made.micrograph.shape
    pixels = np.rint((atoms.positions[:, :2] - atoms.info["origin"]) / made.micrograph.sampling).astype(int)
    pixels = np.clip(pixels, 0, np.array(shape) - 1)
    image = np.zeros(shape)
    np.add.at(image, tuple(pixels.T), atoms.numbers**1.8)
    image = gaussian_filter(image, 0.45 / made.micrograph.sampling)
    inner = (slice(10, -10),) * 2

    def likeness(other):
        return np.corrcoef(made.micrograph.data[inner].ravel(), other[inner].ravel())[0, 1]

    assert likeness(image) > 0.95
    assert max(likeness(other) for other in (image.T, image[::-1], image[:, ::-1], image[::-1, ::-1])) < 0.5


def test_multislice_takes_the_atoms():
    """Of three columns the probe sees the pair of Se, the W, and the single Se, in this order of positions."""
    rows = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    few = classification(
        rows, posterior([X2, METAL, SINGLE_VACANCY]), sampling=1.0 / 3.0, provenance={"context": CONTEXT.to_dict()}
    )
    atoms = few.to_ase(vacuum=3.0)
    probes = atoms.info["origin"] + few.sampling * few.positions
    pair, tungsten, single = scan_probes(atoms, probes, 80e3, [CONTEXT.detector], phonons=1)[:, 0]
    assert tungsten > pair > 1.5 * single > 0


def test_unknown_columns_are_kept_or_dropped(result):
    kept, dropped = result.to_ase(), result.to_ase(unknown="drop")
    assert set(kept.arrays["column"]) - set(dropped.arrays["column"]) == {5, 6, 40, 41}
    assert set(dropped.arrays["column"]) == set(np.flatnonzero(result.counted)) - {99}
    with pytest.raises(ValueError, match="unknown: expected one of keep, drop, got 'hide'"):
        result.to_ase(unknown="hide")


def with_context(result, *arguments, **values):
    return replace(result, provenance={"context": ctm.Context(*arguments, **values).to_dict()})


def test_the_elements_are_those_of_the_context_or_given(result):
    two = with_context(result, "MoS2", ("V", "Cr"), fractions={"V": 0.1, "Cr": 0.02})
    assert set(two.to_ase().symbols) == {"Mo", "V", "S"}
    assert set(two.to_ase(dopant="Cr").symbols) == {"Mo", "Cr", "S"}
    assert two.to_ase().info["dopants"] == {"V": 0.1, "Cr": 0.02}
    none = with_context(result, "MoS2")
    with pytest.raises(ValueError, match="dopant: 10 columns are dopants and the context names none"):
        none.to_ase()
    assert set(none.to_ase(dopant="Re").symbols) == {"Mo", "Re", "S"}
    with pytest.raises(ValueError, match="dopant: expected one element, got 'Xx'"):
        none.to_ase(dopant="Xx")
    alloy = with_context(result, "Mo(S0.5Te0.5)2", "V")
    with pytest.raises(ValueError, match=r"chalcogen: expected one element, got 'S0\.5Te0\.5', give it as chalcogen="):
        alloy.to_ase()
    assert set(alloy.to_ase(chalcogen="Te").symbols) == {"Mo", "V", "Te"}


def test_what_the_atoms_need_and_nobody_tells_is_asked_for(result, empty):
    new = with_context(result, "HfS2", "V", lattice_constant=3.6)
    with pytest.raises(ValueError, match="thickness: that of HfS2 is not known"):
        new.to_ase()
    assert np.ptp(new.to_ase(thickness=3.0).positions[:, 2]) == pytest.approx(3.0)
    with pytest.raises(ValueError, match="thickness: expected Å"):
        new.to_ase(thickness=-1.0)
    with pytest.raises(ValueError, match="vacuum: expected Å"):
        new.to_ase(thickness=3.0, vacuum=-1.0)
    with pytest.raises(ValueError, match="columns: expected at least one"):
        empty.to_ase()
    with pytest.raises(ValueError, match="provenance: expected the context"):
        replace(result, provenance={}).to_ase()


def test_ase_writes_and_reads_the_atoms(result, tmp_path):
    atoms = result.to_ase()
    ase.io.write(tmp_path / "a.xyz", atoms)
    again = ase.io.read(tmp_path / "a.xyz")
    assert again.get_chemical_symbols() == atoms.get_chemical_symbols()
    np.testing.assert_allclose(again.positions, atoms.positions, atol=1e-7)
    np.testing.assert_array_equal(again.arrays["column"], atoms.arrays["column"])
    np.testing.assert_allclose(again.info["origin"], atoms.info["origin"], atol=1e-7)
    assert again.info["dopants"] == atoms.info["dopants"]
