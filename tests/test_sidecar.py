"""What is said of micrographs in files beside them: precedence, units, and every wrong value told by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextem.micrograph import Detector
from contextem.sidecar import COMMAND_LINE, KEYS, Settings, parse_settings, read_settings, settings_of

WHOLE = """
host: WSe2
dopants: [Cr, V]
fractions: {Cr: 0.02, V: 0.01}
lattice_constant: 3.3
energy_kev: 80
detector: {name: HAADF, inner: 70, outer: 200}
sampling: 0.2
signal: HAADF
frame: 3
scan_shape: [64, 32]
angular_sampling: 1.5
centre: [63.5, 64]
detectors:
  - {name: HAADF, inner: 70, outer: 200}
  - {name: MAADF, inner: 40, outer: 70}
"""
VALUES = {
    "host": "WSe2",
    "dopants": ["Cr"],
    "fractions": {"Cr": 0.02},
    "lattice_constant": 3.3,
    "energy_kev": 80,
    "detector": "HAADF",
    "sampling": 0.2,
    "signal": 1,
    "frame": 0,
    "scan_shape": [64, 32],
    "angular_sampling": 2,
    "centre": [31.5, 32],
    "detectors": [{"name": "HAADF", "inner": 70, "outer": 200}],
}


def test_every_key(tmp_path):
    (tmp_path / "field.yaml").write_text(WHOLE)
    assert read_settings(tmp_path / "field.yaml") == Settings(
        host="WSe2",
        dopants=("Cr", "V"),
        fractions={"Cr": 0.02, "V": 0.01},
        lattice_constant=3.3,
        energy=80e3,
        detector=Detector("HAADF", 70, 200),
        sampling=0.2,
        signal="HAADF",
        frame=3,
        scan_shape=(64, 32),
        angular_sampling=1.5,
        centre=(63.5, 64.0),
        detectors=(Detector("HAADF", 70, 200), Detector("MAADF", 40, 70)),
        origin=dict.fromkeys((key.removesuffix("_kev") for key in KEYS), "sidecar field.yaml"),
    )
    assert set(VALUES) == set(KEYS)


def test_an_empty_file_says_nothing(tmp_path):
    for text in ("", "# later\n", "{}"):
        (tmp_path / "field.yaml").write_text(text)
        assert read_settings(tmp_path / "field.yaml") == Settings()


def test_short_spellings():
    assert parse_settings({"dopants": "Cr"}, "x").dopants == ("Cr",)
    assert parse_settings({"dopants": []}, "x").dopants == ()
    assert parse_settings({"detector": "MAADF"}, "x").detector == Detector("MAADF")
    assert parse_settings({"sampling": "estimate"}, "x").sampling == "estimate"


@given(st.lists(st.sets(st.sampled_from(sorted(VALUES))), min_size=1, max_size=4))
def test_what_is_nearest_counts(levels):
    """Against a plain search from the nearest level on; here all levels speak of the same dopant."""
    parsed = [parse_settings({key: VALUES[key] for key in keys}, f"level {i}") for i, keys in enumerate(levels)]
    joined = parsed[0]
    for level in parsed[1:]:
        joined = joined.over(level)
    for key in VALUES:
        name = key.removesuffix("_kev")
        first = next((i for i, keys in enumerate(levels) if key in keys), None)
        assert joined.origin.get(name) == (None if first is None else f"level {first}")
        assert getattr(joined, name) == (None if first is None else getattr(parsed[first], name))


def test_files_beside_a_micrograph(tmp_path):
    (tmp_path / "contextem.yaml").write_text("host: WSe2\nenergy_kev: 80\nsampling: 0.3\ndetector: HAADF\n")
    (tmp_path / "field.yaml").write_text("energy_kev: 60\nsampling: 0.2\ndetector: MAADF\n")
    shared = parse_settings({"sampling": 0.25, "detector": "LAADF"}, "context file x.yaml")
    command_line = parse_settings({"detector": "BF"}, COMMAND_LINE)
    settings = settings_of(tmp_path / "field.dm4", command_line, shared)
    assert settings.origin == {
        "host": "sidecar contextem.yaml",
        "energy": "sidecar field.yaml",
        "sampling": "context file x.yaml",
        "detector": COMMAND_LINE,
    }
    assert (settings.host, settings.energy, settings.sampling, settings.detector) == (
        "WSe2",
        60e3,
        0.25,
        Detector("BF"),
    )
    assert settings_of(tmp_path / "other.dm4").sampling == 0.3
    assert settings_of(tmp_path / "folder" / "field.dm4") == Settings()
    (tmp_path / "field.yml").write_text("")
    with pytest.raises(ValueError, match=r"field.yaml: expected one file of this name, got field.yml too, join them$"):
        settings_of(tmp_path / "field.dm4")


def test_fractions_belong_to_dopants():
    folder = parse_settings({"dopants": ["Cr"], "fractions": {"Cr": 0.02}}, "folder")
    assert parse_settings({"dopants": ["V"]}, "file").over(folder).fractions is None
    assert parse_settings({"dopants": ["Cr"]}, "file").over(folder).fractions == {"Cr": 0.02}
    assert parse_settings({"dopants": []}, "file").over(folder).fractions is None
    alone = parse_settings({"host": "WSe2", "fractions": {"Cr": 0.02, "V": 0.1}}, "file").context()
    assert (alone.dopants, alone.fractions) == (("Cr", "V"), {"Cr": 0.02, "V": 0.1})


def test_a_detector_is_one_value():
    folder = parse_settings({"detector": {"name": "HAADF", "inner": 70, "outer": 200}}, "folder")
    file = parse_settings({"detector": "MAADF"}, "file").over(folder)
    assert file.detector == Detector("MAADF")
    assert file.with_angles(50, 120, COMMAND_LINE).detector == Detector("MAADF", 50, 120)
    assert file.with_angles(50, 120, COMMAND_LINE).origin["detector"] == COMMAND_LINE
    with pytest.raises(
        ValueError, match=r"^inner: expected collection angles together with the name of their detector"
    ):
        Settings().with_angles(50, 120, COMMAND_LINE)


def test_the_context():
    settings = parse_settings(
        {"host": "WSe2", "dopants": "Cr", "energy_kev": 80, "detector": "HAADF"}, "sidecar a.yaml"
    )
    context = settings.context()
    assert (context.host, context.dopants, context.energy, context.detector) == ("WSe2", ("Cr",), None, None)
    assert context.provenance == {
        "host": "sidecar a.yaml",
        "dopants": "sidecar a.yaml",
        "fractions": "default",
        "lattice_constant": "table",
    }
    with pytest.raises(ValueError, match=r"^host: expected the formula .* got none, give it as --host, or as host in"):
        Settings().context()
    with pytest.raises(ValueError, match=r"^host: expected a formula MX2 .* got 'WSe' \(sidecar a.yaml\)$"):
        parse_settings({"host": "WSe"}, "sidecar a.yaml").context()
    with pytest.raises(ValueError, match=r"got 'WSe'$"):
        parse_settings({"host": "WSe"}, COMMAND_LINE).context()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("host", 3, "host: expected text, got 3"),
        ("host", None, "host: expected a value, got none, leave the line out"),
        ("dopants", [False], r"dopants: expected an element or a list of elements such as \[Cr, V\], got \[False\]"),
        ("dopants", 3, "dopants: expected an element or a list"),
        ("fractions", [0.1], "fractions: expected a fraction for each dopant"),
        ("fractions", {"Cr": "2 %"}, "fractions: expected a fraction for each dopant"),
        ("lattice_constant", 0.332, "lattice_constant: expected Å, 2 to 6, got 0.332"),
        ("energy_kev", 80_000, r"energy_kev: expected keV \(80 for 80 keV\), got 80000; that would be eV"),
        ("energy_kev", 0.08, "energy_kev: expected the beam energy of a microscope in keV, 10 or more, got 0.08"),
        ("energy_kev", -80, "energy_kev: expected the beam energy"),
        ("energy_kev", "80 keV", "energy_kev: expected a number in keV, got '80 keV'"),
        ("energy_kev", True, "energy_kev: expected a number in keV, got True"),
        ("detector", "EELS", "detector: expected one of HAADF, .*, got 'EELS'"),
        ("detector", ["HAADF"], "detector: expected a name or {name: HAADF"),
        ("detector", {"inner": 70, "outer": 200}, "detector: expected a name or {name: HAADF"),
        ("detector", {"name": "HAADF", "iner": 70}, "detector.iner: unknown key, did you mean inner"),
        ("detector", {"name": "HAADF", "outer": 200}, "detector: expected both inner and outer or none of them"),
        (
            "detector",
            {"name": "HAADF", "inner": 0.07, "outer": 0.2},
            r"outer: expected mrad \(200 mrad is 200\), got 0.2",
        ),
        ("sampling", 20, "sampling: expected Å/px, 0.001 to 5, got 20"),
        ("sampling", "0.2 A", "sampling: expected a number in Å/px or estimate, got '0.2 A'"),
        ("signal", 1.5, "signal: expected the name or number of an image, got 1.5"),
        ("frame", "first", "frame: expected the number of an image, got 'first'"),
        ("scan_shape", 64, r"scan_shape: expected the numbers of rows and columns such as \(256, 256\), got 64"),
        ("scan_shape", [64, 0], "scan_shape: expected the numbers of rows and columns"),
        ("scan_shape", [64, 32.5], "scan_shape: expected the numbers of rows and columns"),
        ("angular_sampling", 0, "angular_sampling: expected mrad/px, 0.001 to 100, got 0"),
        ("angular_sampling", "1/nm", "angular_sampling: expected a number in mrad/px, got '1/nm'"),
        ("centre", [64], "centre: expected row and column of the undiffracted beam in px"),
        ("centre", "middle", "centre: expected row and column of the undiffracted beam in px"),
        ("detectors", "HAADF", r"detectors: expected a list such as \[{name: HAADF"),
        ("detectors", [], "detectors: expected a list such as"),
        ("detectors", ["HAADF"], r"detectors\[0\]: expected both inner and outer in mrad, got 'HAADF'"),
        ("detectors", [{"name": "HAADF", "iner": 70}], r"detectors\[0\].iner: unknown key, did you mean inner"),
    ],
)
def test_values_that_cannot_be(tmp_path, key, value, message):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        parse_settings({key: value}, "sidecar field.yaml")
    import yaml

    (tmp_path / "field.yaml").write_text(yaml.safe_dump({key: value}))
    with pytest.raises((TypeError, ValueError), match=f"field.yaml: {message}"):
        read_settings(tmp_path / "field.yaml")


@pytest.mark.parametrize(
    ("key", "guess"),
    [
        ("energy", "did you mean energy_kev?"),
        ("Host", "did you mean host?"),
        ("dopant", "did you mean dopants?"),
        ("lattice", "did you mean lattice_constant?"),
        ("colour", "unknown key. Known are host, dopants"),
        (3, "3: unknown key. Known are host, dopants"),
    ],
)
def test_unknown_keys(key, guess):
    with pytest.raises(ValueError) as caught:
        parse_settings({key: 1}, "sidecar field.yaml")
    assert guess in str(caught.value)


def test_options_are_named_as_such():
    with pytest.raises(ValueError, match=r"^--energy-kev: expected keV"):
        parse_settings({"energy_kev": 80_000}, COMMAND_LINE)
    with pytest.raises(TypeError, match=r"^--dopant: expected an element"):
        parse_settings({"dopants": 3}, COMMAND_LINE)


def test_files_that_are_no_yaml(tmp_path):
    path = tmp_path / "field.yaml"
    for content, message in {
        b"host: [": "expected YAML, got what is none",
        b"\xff\xfe\x00": "expected text in UTF-8, got something else",
        b"a: &a [x]\nhost: [*a, *a]": "expected YAML, got what is none (an alias such as *name, write out",
        b"[" * 5000: "expected YAML, got what is none",
        b"host: 2024-13-01": "expected YAML, got what is none (month must be in 1..12",
        b"host: WSe2" + bytes(1 << 16): "expected at most 65536 bytes of text, got more",
        b"!!python/object/apply:os.getcwd []": "expected YAML, got what is none",
        b"WSe2": "expected lines such as `host: WSe2`, got str",
        b"- WSe2": "expected lines such as `host: WSe2`, got list",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            read_settings(path)
        assert str(caught.value).startswith(f"{path}: {message}")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_settings(tmp_path / "absent.yaml")
