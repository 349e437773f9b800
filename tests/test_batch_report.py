"""The report of a batch: what differs by more than chance, what to look at, one page whatever there is to tell."""

import base64
import io
import json
import time
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from statsmodels.stats.contingency_tables import Table
from test_page import BROWSERS, EVIL, Page, browse, table_rows  # noqa: F401

from contextem.batch.merge import Merged, specimens
from contextem.batch.report import write_report
from contextem.batch.review import kinds, odd_ones
from contextem.batch.spread import QUANTITIES, Shares, jeffreys, shares, spread, trend
from contextem.columns import CLASSES
from contextem.densities import site_fractions

CELL = np.sqrt(0.75) * 3.32**2 * 1e-16  # cm^2


def fraction(count, sites, scale=1.0):
    """What a summary tells of `count` sure defects among `sites`."""
    end = stats.beta.ppf((0.025, 0.975), count + 0.5, sites - count + 0.5)
    low, high = (0.0, stats.beta.ppf(0.975, 1, sites + 1)) if count == 0 else end
    return {
        "value": scale * count / sites, "interval_95": [scale * low, scale * high], "count": count,
        "expected_count": float(count), "sites": sites, "detection_limit": scale * 3 / sites,
    }  # fmt: skip


def summary(name, counts=(20, 4, 3), sites=400, **other):
    """The summary of a micrograph with sure defects: dopants, single and double vacancies."""
    host, dopants = other.pop("host", "WSe2"), other.pop("dopants", ["Cr"])
    origin = {"host": "sidecar contextem.yaml", "dopants": "command line", "energy": "file", "detector": "user"}
    context = {
        "host": host, "dopants": dopants, "energy": 80e3, "lattice_constant": 3.32, "fractions": {},
        "detector": {"name": "HAADF", "inner": 70, "outer": 200}, "provenance": origin | {"lattice_constant": "table"},
    }  # fmt: skip
    dopant, single, double = counts
    told = {
        "name": name, "frame": None, "columns": 2 * sites,
        "counts": dict(zip(CLASSES, (sites - dopant, dopant, sites - single - double, single, double), strict=True)),
        "dopant_fraction": fraction(dopant, sites),
        "single_vacancy_density_per_cm2": fraction(single, sites, 1 / CELL),
        "double_vacancy_density_per_cm2": fraction(double, sites, 1 / CELL),
        "unknown": 0, "contaminated": 0, "not_observed": 5, "not_complete": 90, "mean_entropy_bits": 0.02,
        "sampling_angstrom_per_px": 0.2, "lattice_constant_angstrom": 3.32, "context": context,
        "collection_angles_by_image_used": False, "further_detectors": [],
        "calibration": {"stated_angstrom_per_px": 0.2, "by_lattice_angstrom_per_px": 0.2004, "used": "stated"},
        "micrograph": {"source": name, "provenance": {"sampling": "file"}},
        "model": {"name": "tmd1296", "version": "0.1.0"}, "warnings": [], "contextem_version": "0.1.0",
    }  # fmt: skip
    return told | other


def campaign(count=40, seed=0, **other):
    """Micrographs of one specimen whose defects differ by chance alone."""
    rng = np.random.default_rng(seed)
    return [
        summary(f"field_{i:05d}.tif", tuple(map(int, rng.binomial(400, (0.05, 0.01, 0.008)))), **other)
        for i in range(count)
    ]


def written(folder, micrographs, failures=(), left=()):
    merged = Merged(folder, list(micrographs), list(failures), list(left))
    write_report(folder / "report.html", merged, specimens(merged))
    return folder / "report.html"


def page(*told):
    return Page(written(*told).read_text(encoding="utf-8"))


def made_shares(counts, sites):
    counts, sites = np.asarray(counts, float), np.asarray(sites, float)
    return Shares(np.arange(len(counts)), sites, counts, *jeffreys(counts, sites), scale=100.0)


# Real differences and chance


def test_intervals_are_those_of_the_densities():
    for count in (0, 1, 7, 400):
        sure = np.repeat(np.eye(2), (400 - count, count), axis=0)
        _, found = site_fractions(sure, (0.9, 0.1))
        (low,), (high,) = jeffreys(np.array([float(count)]), np.array([400.0]))
        assert (low, high) == pytest.approx(found.interval_95, rel=0.02, abs=1e-5)


def test_sure_labels_count_in_full_and_doubtful_ones_less():
    sure = made_shares([20, 0], [400, 400])
    np.testing.assert_allclose(sure.sure_sites, 400)
    wide = Shares(sure.where, sure.sites, sure.expected, sure.low / 2, sure.high * 1.5, 100.0)
    assert (wide.sure_sites < 250).all()


def test_many_defects_are_tested_as_by_pearson():
    rng = np.random.default_rng(1)
    sites = rng.integers(3000, 9000, 30)
    counts = rng.binomial(sites, 0.2)
    expected = stats.chi2_contingency([counts, sites - counts], correction=False).pvalue
    assert spread(made_shares(counts, sites)).p_value == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("share", "micrographs"), [(0.003, 20), (0.003, 200), (0.05, 5), (0.05, 60)])
def test_chance_alone_is_seldom_taken_for_more(share, micrographs):
    rng = np.random.default_rng(2)
    p = [
        spread(made_shares(rng.binomial(500, share, micrographs), np.full(micrographs, 500))).p_value
        for _ in range(1500)
    ]
    for level in (0.01, 0.05, 0.5):
        assert np.mean(np.array(p) < level) == pytest.approx(level, abs=4.5 * np.sqrt(level / 1500) + 0.2 * level)


def test_what_is_beyond_chance_is_found():
    rng = np.random.default_rng(3)
    told = []
    for _ in range(40):
        shares_ = np.clip(rng.normal(0.08, 0.02, 50), 0, 1)
        sites = rng.integers(300, 900, 50)
        told.append(spread(made_shares(rng.binomial(sites, shares_), sites)))
    assert np.mean([each.beyond for each in told]) == pytest.approx(0.02, rel=0.05)
    assert max(each.p_value for each in told) < 1e-3
    inside = [each.interval_95[0] < 0.08 < each.interval_95[1] for each in told]
    assert np.mean(inside) > 0.85
    assert np.mean([each.by_chance for each in told]) == pytest.approx(0.0115, rel=0.15)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(60, 500)), min_size=2, max_size=12))
def test_numbers_are_possible_ones(pairs):
    found = made_shares(*zip(*pairs, strict=True))
    told = spread(found)
    assert 0 <= told.interval_95[0] <= told.mean <= told.interval_95[1] <= 1
    assert 0 <= told.p_value <= 1
    assert told.beyond >= 0
    total = sum(count for count, _ in pairs) / sum(sites for _, sites in pairs)
    assert told.mean == pytest.approx(total)


def test_a_trend_is_that_of_cochran_and_armitage():
    rng = np.random.default_rng(4)
    frames = np.arange(20)
    sites = np.full(20, 600)
    counts = rng.binomial(sites, 0.05 + 0.0008 * frames)
    line = trend(made_shares(counts, sites), frames.astype(float))
    table = Table(np.stack([counts, sites - counts], axis=1))
    oracle = table.test_ordinal_association(col_scores=np.array([1, 0]), row_scores=frames)
    assert line.p_value == pytest.approx(oracle.pvalue, rel=0.02)
    slope, start = np.polyfit(frames, counts / sites, 1)
    assert (line.start, line.end) == pytest.approx((start, start + 19 * slope))
    assert trend(made_shares([1, 2], [100, 100]), np.arange(2.0)) is None


# What to look at


def test_nothing_stands_out_of_chance():
    assert odd_ones(campaign(300)) == []
    assert odd_ones(campaign(1)) == []
    assert odd_ones([]) == []


def test_what_stands_out_is_found_and_why():
    batch = campaign(60)
    batch[3] |= {"warnings": ["sampling: 0.215 Å/px stated"]}
    batch[7] |= {"unknown": 200, "mean_entropy_bits": 0.7}
    batch[11] = summary("field_00011.tif", (120, 4, 3))
    batch[19]["calibration"] = batch[19]["calibration"] | {"by_lattice_angstrom_per_px": 0.19}
    found = {each.index: each for each in odd_ones(batch)}
    assert set(found) == {3, 7, 11, 19}
    assert found[7].reasons == ["unknown columns: 25 %", "mean entropy: 0.7 bits"]
    assert found[11].reasons == [f"dopants on metal sites: {120 / mean_dopants(batch):.2g} times the mean"]
    assert found[19].reasons == ["sampling by the lattice 5.0 % below that stated"]
    assert [each.index for each in found.values() if not each.doubtful] == [11]
    assert next(iter(found)) == 7


def mean_dopants(batch):
    return np.mean([each["dopant_fraction"]["count"] for each in batch])


def test_kinds_differ_in_more_than_numbers_and_names():
    told = [(f"a/f{i}.dm4", f"path: f{i}.dm4 holds {i} of {i + 3} images") for i in range(5)]
    told += [("s.tif[3]", "context: the image looks less like MoS2 than like WSe2")] * 7
    told += [("s.tif[4]", "path: s.tif is empty"), ("t.tif[5]", "path: t.tif is empty")]
    assert [(each.count, each.example, each.name) for each in kinds(told)] == [
        (7, "context: the image looks less like MoS2 than like WSe2", "s.tif[3]"),
        (5, "path: f0.dm4 holds 0 of 3 images", "a/f0.dm4"),
        (2, "path: s.tif is empty", "s.tif[4]"),
    ]


# The page


def test_it_says_first_what_was_found(tmp_path):
    failures = [{"name": "b.tif", "reason": "path: b.tif is damaged", "final": True}]
    shown = page(tmp_path, campaign(40), failures, ["c.tif"])
    assert shown.words("h1") == shown.words("title") == ["Cr-doped WSe₂"]
    assert "40 micrographs, 32,000 columns, 1 failure, 1 part not done" in shown.words("p")
    verdict = next(words for words in shown.words("p") if words.startswith("32,000 columns"))
    assert "by no more than chance" in verdict
    assert verdict.endswith("No micrograph stands out.")
    assert any(words.startswith("1 part is not done yet: c.tif.") for words in shown.words("p"))
    assert shown.words("h2") == [
        "Not finished", "Specimens", "Cr-doped WSe₂, 80 keV, HAADF", "How far they can be trusted",
        "What to look at first", "Failures", "Contexts, and where every value comes from",
    ]  # fmt: skip
    rows = [[" ".join(text.split()) for text in cells] for cells in table_rows(shown)]
    assert ["b.tif", "path: b.tif is damaged"] in rows
    assert ["beam energy", "80 keV", "the file", "40"] in rows
    assert ["sampling stated", "0.2 Å/px", "the file", "40"] in rows
    assert ["dopants", "Cr", "the command line", "40"] in rows
    assert ["model", "tmd1296 0.1.0", "40 micrographs"] in rows


def test_numbers_are_those_of_the_micrographs(tmp_path):
    batch = campaign(40)
    rows = [[" ".join(text.split()) for text in cells] for cells in table_rows(page(tmp_path, batch))]
    counts = np.array([[each["counts"][name] for name in CLASSES] for each in batch]).sum(axis=0)
    expected = [*(f"{count:,}" for count in counts), "0", "0", "3,600", "200"]
    assert ["Cr-doped WSe₂, 80 keV, HAADF", *expected] in rows
    (row,) = (row for row in rows if row[0] == "dopants on metal sites (%)")
    shares_ = np.array([each["dopant_fraction"]["value"] for each in batch])
    p, chance = shares_.mean(), np.sqrt(shares_.mean() * (1 - shares_.mean()) / 400)
    assert row[1] == "16,000"
    assert float(row[2]) == pytest.approx(100 * p, rel=0.02)
    assert [float(end) for end in row[4].split(" to ")] == pytest.approx(
        [100 * shares_.min(), 100 * shares_.max()], rel=0.05
    )
    assert float(row[5]) == pytest.approx(100 * shares_.std(ddof=1), rel=0.05)
    assert float(row[6]) == pytest.approx(100 * chance, rel=0.05)
    (row,) = (row for row in rows if row[0].startswith("single vacancies ("))
    assert row[0] == "single vacancies (10¹³ cm⁻²)"
    assert float(row[2]) == pytest.approx(1e-13 * counts[3] / 16000 / CELL, rel=0.05)


def test_what_differs_is_told_with_and_without_what_is_doubtful(tmp_path):
    batch = campaign(40)
    batch[5] = summary("bad.tif", (150, 4, 3), warnings=["columns: 30 % look like none of the classes"])
    shown = page(tmp_path, batch)
    bullets = shown.words("li")
    assert "The columns of 1 micrograph are doubtful: bad.tif." in bullets
    (dopants,) = (words for words in bullets if words.startswith("Dopants on metal sites differ"))
    assert "beyond chance (p < 10⁻⁶); without the doubtful ones, by no more than chance" in dopants
    assert "columns: 30 % look like none of the classes" in bullets
    assert "by no more than chance" in next(words for words in shown.words("p") if "columns in" in words)
    assert "Warnings, by kind" in shown.words("h2")


def test_a_series_is_told_in_time(tmp_path):
    rng = np.random.default_rng(5)
    batch = [
        summary(f"beam.tif[{i}]", (0, int(rng.binomial(400, 0.005 + 0.002 * i)), 2), frame=i, dopants=[], host="MoS2")
        for i in range(30)
    ]
    shown = page(tmp_path, batch)
    assert shown.words("h1") == ["MoS₂"]
    (rise,) = (words for words in shown.words("li") if "along the series" in words)
    assert rise.startswith("Single vacancies rise along the series")
    assert not any("opants" in words for words in shown.words("li"))
    assert any("every frame" in words for words in shown.words("figcaption"))


def test_specimens_have_their_sections_and_figures_their_files(tmp_path):
    batch = [
        *campaign(20),
        *campaign(8, host="MoSe2", dopants=["W", "V"]),
        summary("alone.tif", host="MoS2", dopants=[]),
    ]
    shown = page(tmp_path, batch)
    assert shown.words("h1") == ["Cr-doped WSe₂, W, V-doped MoSe₂ and MoS₂"]
    files = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert files == [
        "defects-1-Cr-doped-WSe2-80-keV-HAADF.png", "defects-2-W-V-doped-MoSe2-80-keV-HAADF.png", "quality.png",
    ]  # fmt: skip
    captions = " ".join(shown.words("figcaption"))
    embedded = [base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) for image in shown.all("img")]
    for name, image, content in zip(files, shown.all("img"), embedded, strict=True):
        assert f"figures/{name}" in captions
        assert (tmp_path / "figures" / name).read_bytes() == content
        with Image.open(io.BytesIO(content)) as drawn:
            assert drawn.size == (int(image["width"]), int(image["height"]))
            assert drawn.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert len(image["alt"]) > 30
    assert {path.name for path in tmp_path.iterdir()} == {"figures", "report.html"}
    labelled = {section.get("aria-labelledby") for section in shown.all("section")} - {None}
    assert labelled <= {heading.get("id") for heading in shown.all("h2")}


def test_there_is_a_page_where_nothing_could_be_classified(tmp_path):
    failures = [{"name": f"f{i}.tif", "reason": f"path: f{i}.tif is damaged", "final": True} for i in range(70)]
    shown = page(tmp_path, [], failures)
    assert shown.words("h1") == ["No micrograph could be classified"]
    assert not shown.all("img")
    rows = [[" ".join(text.split()) for text in cells] for cells in table_rows(shown)]
    assert ["70", "path: f0.tif is damaged", "f0.tif"] in rows
    assert sum(row[-1].endswith("is damaged") for row in rows) == 50
    assert any("20 more: see failures.csv" in words for words in shown.words("p"))
    nothing = page(tmp_path, [], [], ["a.tif"])
    assert nothing.words("h1") == ["Nothing is done yet"]
    assert nothing.words("h2") == ["Not finished", "Contexts, and where every value comes from"]


@pytest.mark.parametrize(
    "batch",
    [
        pytest.param([summary("one.tif")], id="one"),
        pytest.param([summary("one.tif", (0, 0, 0)), summary("two.tif", (0, 0, 0))], id="no defects"),
        pytest.param([summary("one.tif", (0, 3, 1), dopants=[])] * 3, id="no dopants"),
        pytest.param([summary("one.tif", (400, 0, 400))] * 3, id="nothing but defects"),
        pytest.param(
            [
                summary("empty.tif", columns=0, mean_entropy_bits=None)
                | {each.name: fraction(0, 1) | {"sites": 0, "value": None, "interval_95": None} for each in QUANTITIES}
            ],
            id="no sites",
        ),
        pytest.param(
            [summary("a.tif", calibration={"stated_angstrom_per_px": 0.2, "by_lattice_angstrom_per_px": None})] * 3,
            id="sampling not measured",
        ),
    ],
)  # fmt: skip
def test_little_is_told_too(tmp_path, batch):
    shown = page(tmp_path, batch)
    text = " ".join(shown.words("body")).replace(" ", " ")
    assert "nan" not in text.lower().split() and "None" not in text.split()
    assert f"{len(batch)} micrograph" in text


def test_densities_are_those_of_the_cell_of_each_micrograph():
    found = shares([summary("a.tif"), summary("b.tif")], QUANTITIES[1])
    np.testing.assert_allclose(found.values, 0.01)
    assert found.scale == pytest.approx(1 / CELL)


@pytest.mark.parametrize("specimens_", [1, 60])
def test_it_stays_a_page_whatever_the_number_of_micrographs(tmp_path, specimens_):
    batch = campaign(10_000)
    for i, each in enumerate(batch):
        each["context"] = each["context"] | {"energy": 60e3 + 1e3 * (i % specimens_)}
        each["micrograph"] = {"provenance": {"sampling": f"sidecar field_{i}.yaml"}}
        each["warnings"] = [f"columns: {i % 90} % look like none"] if i % 3 else []
    failures = [{"name": f"x{i}.tif", "reason": f"{'why ' * 200}{i}", "final": True} for i in range(2000)]
    start = time.process_time()
    path = written(tmp_path, batch, failures, [f"left{i}" for i in range(3000)])
    assert time.process_time() - start < 20.0  # of a busy machine
    assert path.stat().st_size < 5e6
    assert sum(file.stat().st_size for file in (tmp_path / "figures").iterdir()) < 5e6


def test_texts_from_files_are_escaped(tmp_path):
    evil = summary(EVIL, host="MoS2", dopants=[EVIL], warnings=[EVIL], model={"name": EVIL}, contextem_version=EVIL)
    evil["context"]["provenance"] = dict.fromkeys(evil["context"]["provenance"], EVIL)
    evil["micrograph"] = {"provenance": {"sampling": EVIL}}
    shown = page(tmp_path, [evil, *campaign(3)], [{"name": EVIL, "reason": EVIL, "final": True}], [EVIL])
    assert not shown.all("script")
    assert all(image["src"].startswith("data:image/png") and "onerror" not in image for image in shown.all("img"))
    assert EVIL in shown.text["td"]
    assert all(path.parent == tmp_path / "figures" for path in tmp_path.rglob("*.png"))


def test_it_asks_no_host_for_anything_and_runs_nothing(tmp_path):
    path = written(tmp_path, campaign(10))
    shown, text = Page(path.read_text(encoding="utf-8")), path.read_text(encoding="utf-8")
    assert "default-src 'none'" in next(m["content"] for m in shown.all("meta") if "http-equiv" in m)
    for _, attributes in shown.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    assert not any(word in text for word in ("http://", "https://", "url(", "<script"))


def test_it_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = written(tmp_path, campaign(3))
    before = path.read_bytes()
    monkeypatch.setattr("contextem.batch.report.draw_quality", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        written(tmp_path, campaign(4))
    assert path.read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


# In a browser

CHECK = """
<script>
const refused = [];
addEventListener("securitypolicyviolation", event => refused.push(`${event.violatedDirective}: ${event.blockedURI}`));
addEventListener("load", () => {
  const seen = document.createElement("output");
  seen.textContent = JSON.stringify({
    title: document.title,
    images: [...document.images].map(image => image.naturalWidth),
    asked: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
    refused: refused,
    wide: document.documentElement.scrollWidth - innerWidth,
    cut: [...document.querySelectorAll(".wide")].filter(box => box.scrollWidth > box.clientWidth)
      .map(box => box.innerText.slice(0, 40)),
  });
  document.body.append(seen);
});
</script>
"""


def checked(path: Path, browse, *options):  # noqa: F811
    """What the page looks like to a script in a copy of it, and the messages of the console."""
    text = path.read_text(encoding="utf-8")
    allowed = text.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'", 1)
    copy = path.with_name("copy.html")
    copy.write_text(allowed.replace("<title>", f"{CHECK}<title>", 1), encoding="utf-8")
    done = browse(copy, "--dump-dom", *options)
    seen = done.stdout.rpartition("<output>")[2].partition("</output>")[0]
    return json.loads(unescape(seen)), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def varied():
    batch = [*campaign(30), *campaign(12, host="MoSe2", dopants=["W"])]
    batch[4] = summary("a_name_that_is_long_and_has_no_blank_" * 4 + ".tif", (150, 40, 3), warnings=["columns: 30 %"])
    return batch


def test_a_browser_shows_all_of_it_and_asks_for_nothing_else(tmp_path, browse):  # noqa: F811
    path = written(tmp_path, varied(), [{"name": EVIL, "reason": EVIL, "final": True}], [EVIL])
    seen, console = checked(path, browse, "--window-size=1200,1000")
    assert console == []
    assert seen["title"] == "Cr-doped WSe₂ and W-doped MoSe₂"
    assert len(seen["images"]) == 3
    assert min(seen["images"]) > 1000
    assert seen["asked"] == seen["refused"] == []
    assert seen["wide"] <= 0
    assert seen["cut"] == []


def test_a_narrow_browser_needs_no_scrolling_sideways(tmp_path, browse):  # noqa: F811
    seen, _ = checked(written(tmp_path, varied()), browse, "--window-size=520,900")
    assert seen["wide"] <= 0
