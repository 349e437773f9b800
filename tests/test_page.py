"""The report: one page with everything in it, nothing outside it, every text escaped; and what notebooks display.

The installed package is what is tested, so that a wheel without the templates fails here.
"""

import base64
import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from classified import classification, posterior
from click.testing import CliRunner
from PIL import Image

import contextem as ctm
from contextem import page
from contextem.cli import main
from contextem.closeups import draw_disagreements
from contextem.columns import CLASSES
from contextem.densities import densities
from contextem.examples import demo_micrograph
from contextem.pipeline import classify

EVIL = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">.tif"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Tags with their attributes, text by tag, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], {}
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.text[tag][-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def words(self, tag):
        return [" ".join(text.split()) for text in self.text.get(tag, [])]


@pytest.fixture(scope="module")
def demo():
    example = demo_micrograph()
    return example.micrograph, classify(example.micrograph, example.context)


@pytest.fixture(scope="module")
def written(demo, tmp_path_factory):
    micrograph, result = demo
    path = tmp_path_factory.mktemp("report") / "demo.html"
    result.to_html(path, micrograph)
    return path


@pytest.fixture(scope="module")
def parsed(written):
    return Page(written.read_text(encoding="utf-8"))


def small(**provenance):
    """A classification of 60 columns and its micrograph."""
    positions = 12.0 + 8.0 * np.stack(np.divmod(np.arange(60), 10), axis=1)
    result = classification(positions, posterior(np.arange(60) % 5, 0.97), provenance=provenance)
    rng = np.random.default_rng(0)
    return result, ctm.Micrograph(rng.normal(size=(70, 100)).astype("f4"), 0.2, source="small.npy")


def report(result, micrograph, tmp_path):
    path = tmp_path / "a.html"
    page.write_report(path, result, micrograph)
    return Page(path.read_text(encoding="utf-8"))


# What is in it


def test_it_says_first_what_was_found(demo, parsed):
    _, result = demo
    assert parsed.words("title") == ["Cr-doped WSe₂"]
    assert parsed.words("h1") == ["Cr-doped WSe₂"]
    found = densities(result)
    verdict = next(words for words in parsed.words("p") if "columns in" in words)
    assert verdict == (
        f"{len(result)} columns in 6.4 × 6.4 nm. Of {found.dopant.sites} metal sites, {found.dopant.count} are Cr; of "
        f"{found.single_vacancy.sites} chalcogen sites, {found.single_vacancy.count} lack one atom and "
        f"{found.double_vacancy.count} lack both."
    )
    fraction = 100 * found.dopant.value
    assert parsed.words("strong")[0] == f"{fraction:.1f} %"
    mantissa, power = f"{found.single_vacancy.value / found.cell_area:.1e}".split("e+")
    assert (
        parsed.words("strong")[1] == f"{mantissa} × 10{power.translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))} cm⁻²"
    )


def test_it_has_every_section_and_figure_with_words_for_those_who_do_not_see_it(parsed):
    assert parsed.words("h2") == [
        "Columns by class", "Numbers", "The surest and the least sure of each class",
        "Where the classification is undecided", "Pairs of defects", "Strain",
        "Context, and where every value comes from", "To do it again",
    ]  # fmt: skip
    images = parsed.all("img")
    assert len(images) == 5
    for image in images:
        assert len(image["alt"]) > 30
        with Image.open(io.BytesIO(base64.b64decode(image["src"].removeprefix("data:image/png;base64,")))) as picture:
            assert picture.size == (int(image["width"]), int(image["height"]))
            assert np.asarray(picture.convert("L")).std() > 10
    assert dict(parsed.tags)["html"] == {"lang": "en"}
    labelled = {section.get("aria-labelledby") for section in parsed.all("section")} - {None}
    assert labelled <= {heading.get("id") for heading in parsed.all("h2")}


def test_it_asks_no_host_for_anything_and_runs_nothing(written, parsed):
    assert "default-src 'none'" in next(m["content"] for m in parsed.all("meta") if "http-equiv" in m)
    assert not parsed.all("script")
    for _, attributes in parsed.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    outside = written.read_text(encoding="utf-8")
    assert "http://" not in outside
    assert "https://" not in outside
    assert "url(" not in outside
    assert written.stat().st_size < 6e6


def test_numbers_are_those_of_the_classification(demo, parsed):
    _, result = demo
    rows = [[" ".join(text.split()) for text in cells] for cells in table_rows(parsed)]
    found = densities(result)
    for name in ("dopant", "single_vacancy", "double_vacancy"):
        each = getattr(found, name)
        row = next(row for row in rows if row[0] == name.replace("_", " ") and len(row) == 9)
        assert row[1:4] == [f"{each.count}", f"{each.expected_count:.1f}", f"{each.sites}"]
        assert float(row[4].removesuffix(" %")) == pytest.approx(100 * each.value, rel=0.05)
        low, high = row[5].removesuffix(" %").split(" to ")
        assert (float(low), float(high)) == pytest.approx(tuple(100 * end for end in each.interval_95), rel=0.05)
        assert float(row[6].removesuffix(" %")) == pytest.approx(100 * each.detection_limit, rel=0.05)
    counted = {row[0]: row[1] for row in rows if len(row) == 3}
    for name, count in result.counts.items():
        assert counted[name.replace("_", " ")] == f"{count}"
    assert counted["at the border"] == f"{np.sum(~result.complete)}"
    assert counted["without a peak"] == f"{np.sum(~result.observed)}"
    # where each value comes from
    assert ["detector", "HAADF", "the user"] in rows
    assert ["collection angles", "70 to 200 mrad", "the user"] in rows
    assert ["sampling stated", "0.125 Å/px", "the file"] in rows
    assert ["expected share of Cr", "5 % of the metal sites", "default"] in rows


def table_rows(parsed):
    """Cells of each row, in order."""
    texts = {tag: iter(parsed.text.get(tag, [])) for tag in ("th", "td")}
    rows = []
    for tag, _ in parsed.tags:
        if tag == "tr":
            rows.append([])
        elif tag in texts:
            rows[-1].append(next(texts[tag]))
    return rows


def test_warnings_are_shown_where_there_are_any(parsed, tmp_path):
    assert "Warning" not in " ".join(parsed.words("h2"))
    result, micrograph = small(warnings=["sampling: 3 % too long"])
    shown = report(result, micrograph, tmp_path)
    assert shown.words("h2")[0] == "Warning"
    assert shown.words("li") == ["sampling: 3 % too long"]
    two = replace(result, provenance={"warnings": ["one", "two"]})
    assert report(two, micrograph, tmp_path).words("h2")[0] == "Warnings"


def test_a_classification_of_unknown_origin_has_a_report_too(tmp_path):
    shown = report(*small(), tmp_path)
    assert shown.words("h1") == ["Classified columns"]
    assert not shown.words("code")
    empty = classification(np.zeros((0, 2)), np.zeros((0, 5)))
    nothing = report(empty, small()[1], tmp_path)
    assert "none is a dopant" in " ".join(nothing.words("p"))
    assert nothing.words("strong") == ["–", "–", "–"]


def test_what_is_not_seen_is_told_by_its_upper_bound(tmp_path):
    result, micrograph = small()
    metals = replace(result, probabilities=posterior(np.arange(60) % 2 * 2, 1 - 1e-6))
    values = report(metals, micrograph, tmp_path).words("strong")
    _, high = densities(metals).dopant.interval_95
    assert values[0] == f"< {100 * high:.1f} %"


def test_columns_that_do_not_count_are_told(tmp_path):
    result, micrograph = small()
    some = replace(result, unknown=np.arange(60) < 2, contaminated=np.arange(60) == 7)
    verdict = " ".join(report(some, micrograph, tmp_path).words("p"))
    assert "3 columns are left out, as unknown or contaminated." in verdict


# Safety


def test_texts_from_files_are_escaped(tmp_path):
    context = ctm.Context("WSe2", "Cr", 80e3, "HAADF").to_dict()
    context["provenance"]["energy"] = EVIL
    result, micrograph = small(
        context=context, warnings=[EVIL], model={"name": EVIL}, calibration={EVIL: EVIL}, contextem_version=EVIL
    )
    evil = ctm.Micrograph(micrograph.data, 0.2, provenance={"sampling": EVIL}, source=EVIL)
    shown = report(result, evil, tmp_path)
    assert not shown.all("script")
    assert all(image["src"].startswith("data:image/png") and "onerror" not in image for image in shown.all("img"))
    assert EVIL in shown.text["li"][0]
    for html in (result._repr_html_(), evil._repr_html_()):
        assert not Page(html).all("script")
        assert len(Page(html).all("img")) == 1


def test_a_report_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    result, micrograph = small()
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(FileExistsError, match="exists already"):
        result.to_html(tmp_path / "mine.html", micrograph, overwrite=False)
    assert (tmp_path / "mine.html").read_text() == "mine"
    monkeypatch.setattr(page, "draw_entropy", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        result.to_html(tmp_path / "mine.html", micrograph)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.html"]
    assert (tmp_path / "mine.html").read_text() == "mine"


# To do it again


def test_the_python_of_the_page_gives_the_same_classification(demo, parsed, monkeypatch):
    from importlib.resources import files

    _, result = demo
    monkeypatch.chdir(str(files("contextem") / "examples"))
    _, script = parsed.words("pre")
    _, text = parsed.text["pre"]
    assert script.startswith("import contextem as ctm")
    names = {}
    exec(text, names)
    np.testing.assert_array_equal(names["result"].probabilities, result.probabilities)


def test_the_command_of_the_page_gives_the_same_classification(demo, tmp_path, monkeypatch):
    micrograph, _ = demo
    monkeypatch.chdir(tmp_path)
    np.save("an image.npy", micrograph.data)
    context = ctm.Context("WSe2", "Cr", 80e3, "HAADF")
    again = ctm.read("an image.npy", sampling=0.125)
    result = classify(again, context)
    shell, script = report(result, again, tmp_path).text["pre"]
    assert "sampling=0.125" in script
    words = shlex.split(shell)
    assert words[:2] == ["contextem", "classify"]
    done = CliRunner().invoke(main, words[1:])
    assert done.exit_code == 0, done.output
    summary = json.loads((tmp_path / "an image.summary.json").read_text())
    assert summary["counts"] == result.counts
    context, again = ({**each["context"], "provenance": None} for each in (summary, result.summary()))
    assert context == again


def test_what_the_shell_cannot_say_is_said_in_python_alone(demo, tmp_path):
    micrograph, result = demo
    rare = ctm.Context("WSe2", "Cr", 80e3, "HAADF", fractions={"Cr": 0.01})
    about = replace(result, provenance={"stated": {"context": rare.to_dict(), "estimate_angles": None}})
    (script,) = report(about, micrograph, tmp_path).text["code"]
    assert "fractions={'Cr': 0.01}" in script
    estimated = ctm.Micrograph(micrograph.data, 0.125, provenance={"sampling": "estimated from the FFT"}, source="a")
    plain = ctm.Context("WSe2", "Cr", 80e3, ctm.Detector("HAADF", 70, 200))
    shell, script = report(
        replace(result, provenance={"stated": {"context": plain.to_dict(), "estimate_angles": True}}),
        estimated,
        tmp_path,
    ).text["code"]
    assert shell.endswith("--estimate-sampling --estimate-angles")
    assert "--inner 70 --outer 200" in shell and script.endswith("estimate_angles=True)")
    assert "sampling='estimate', lattice_constant=3.32" in script


# In a browser


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return a function that runs a headless browser on a page; the test is skipped where there is none."""
    command = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if command is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    profile = tmp_path_factory.mktemp("profile")
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
        "--enable-logging=stderr", f"--user-data-dir={profile}",
    ]  # fmt: skip

    def run(path, *options):
        return subprocess.run(
            [command, *flags, *options, path.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )

    return run


CHECK = """
<script>
const refused = [];
addEventListener("securitypolicyviolation", event => refused.push(`${event.violatedDirective}: ${event.blockedURI}`));
addEventListener("load", () => {
  document.getElementById("zoom").click();
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  const seen = document.createElement("output");
  seen.textContent = JSON.stringify({
    title: document.title,
    images: [...document.images].map(image => image.naturalWidth),
    tables: document.querySelectorAll("table").length,
    asked: asked.filter(name => !name.startsWith("data:")),
    refused: refused,
    wide: document.documentElement.scrollWidth - innerWidth,
    zoomed: document.images[0].getBoundingClientRect().width,
  });
  document.body.append(seen);
});
</script>
"""


def checked(path, browse, tmp_path, *options):
    """What the page looks like to a script in a copy of it, and the messages of the console."""
    text = path.read_text(encoding="utf-8")
    copy = tmp_path / "copy.html"
    allowed = text.replace("style-src 'unsafe-inline'", "style-src 'unsafe-inline'; script-src 'unsafe-inline'", 1)
    assert allowed != text
    copy.write_text(allowed.replace("<title>", f"{CHECK}<title>", 1), encoding="utf-8")
    done = browse(copy, "--dump-dom", *options)
    seen = done.stdout.rpartition("<output>")[2].partition("</output>")[0]
    return json.loads(unescape(seen)), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def test_a_browser_shows_all_of_it_and_asks_for_nothing_else(written, browse, tmp_path):
    seen, console = checked(written, browse, tmp_path, "--window-size=1200,1000")
    assert console == []
    assert seen["title"] == "Cr-doped WSe₂"
    assert len(seen["images"]) == 5
    assert min(seen["images"]) > 500
    assert seen["tables"] == 4
    assert seen["asked"] == seen["refused"] == []
    assert seen["wide"] <= 0
    assert seen["zoomed"] == seen["images"][0]  # the overlay at full size


def test_a_narrow_browser_needs_no_scrolling_sideways(written, browse, tmp_path):
    seen, _ = checked(written, browse, tmp_path, "--window-size=520,900")
    assert seen["wide"] <= 0


def test_a_browser_does_not_run_what_a_file_is_called(browse, tmp_path):
    result, micrograph = small(warnings=[EVIL])
    path = tmp_path / "evil.html"
    page.write_report(path, result, ctm.Micrograph(micrograph.data, 0.2, source=EVIL))
    seen, console = checked(path, browse, tmp_path)
    assert seen["title"] == "Classified columns"
    assert seen["asked"] == seen["refused"] == console == []


def test_the_page_as_it_is_can_be_seen(written, browse, tmp_path):
    browse(written, f"--screenshot={tmp_path / 'seen.png'}", "--window-size=1000,1200")
    with Image.open(tmp_path / "seen.png") as picture:
        grey = np.asarray(picture.convert("L"), float)
    assert grey[:300].std() > 10  # title and verdict
    assert grey[700:].std() > 20  # the micrograph


@pytest.mark.experimental
def test_a_real_micrograph_has_a_report_and_disagreements_with_its_labels(experimental_data, browse, tmp_path):
    micrograph = ctm.read(experimental_data / "ti_wse2_field11_haadf.dm4", detector="HAADF")
    result = classify(micrograph, ctm.Context("WSe2", "Ti", energy=80e3, detector="HAADF"))
    result.to_html(tmp_path / "real.html", micrograph)
    assert (tmp_path / "real.html").stat().st_size < 8e6
    seen, console = checked(tmp_path / "real.html", browse, tmp_path)
    assert len(seen["images"]) == 5
    assert min(seen["images"]) > 500
    assert seen["asked"] == seen["refused"] == console == []
    with (experimental_data / "ti_wse2_field11_columns.csv").open(newline="") as file:
        labelled = list(csv.DictReader(file))
    positions = np.array([(row["row"], row["column"]) for row in labelled], float)
    labels = np.array([CLASSES.index(row["class"]) for row in labelled])
    figure = draw_disagreements(result, micrograph, positions, labels, most=12)
    assert len(figure.axes) == 12
    wrong, judged = re.findall(r"([\d,]+) of ([\d,]+)", figure.texts[0].get_text())[0]
    assert 0 < int(wrong) < 0.03 * int(judged.replace(",", ""))
    assert int(judged.replace(",", "")) > 0.95 * len(labels)


# In a notebook


def test_a_notebook_shows_counts_densities_and_warnings(demo):
    _, result = demo
    shown = Page(replace(result, provenance={**result.provenance, "warnings": ["look at the sampling"]})._repr_html_())
    assert shown.words("b") == ["Cr-doped WSe₂"]
    rows = {row[0].strip(): row[1:] for row in table_rows(shown)}
    for name, count in result.counts.items():
        assert rows[name.replace("_", " ")][0] == f"{count}"
    assert rows["dopant"][1] == f"{100 * densities(result).dopant.value:.1f} %"
    assert any("look at the sampling" in words for words in shown.words("div"))
    assert len(shown.all("img")) == 1


def test_a_notebook_shows_much_in_little(demo):
    _, result = demo
    times = 120  # 10^5 columns
    shift = 600.0 * np.stack(np.divmod(np.arange(times), 11), axis=1)
    arrays = {
        name: np.concatenate([getattr(result, name)] * times)
        for name in result.__dataclass_fields__
        if isinstance(getattr(result, name), np.ndarray)
    }
    arrays["positions"] = (result.positions + shift[:, None]).reshape(-1, 2)
    large = replace(result, **arrays)
    assert len(large) > 100_000
    assert len(large._repr_html_()) < 300_000
    assert "<table" in classification(np.zeros((0, 2)), np.zeros((0, 5)))._repr_html_()


@pytest.mark.parametrize("shape", [(64, 64), (900, 300), (200, 3000)])
def test_a_notebook_shows_a_micrograph_with_a_scale_bar_and_its_origins(shape):
    data = np.random.default_rng(0).integers(0, 60_000, shape).astype("u2")
    micrograph = ctm.Micrograph(data, 0.25, energy=80e3, provenance={"energy": "file"}, source="a <b>.dm4")
    html = micrograph._repr_html_()
    assert len(html) < 300_000
    shown = Page(html)
    (image,) = shown.all("img")
    assert max(int(image["width"]), int(image["height"])) <= 320
    rows = table_rows(shown)
    assert ["file", "a <b>.dm4", ""] in rows
    assert ["sampling", "0.25 Å/px", "the user"] in rows
    assert ["beam energy", "80 keV", "the file"] in rows
    bar = next(a["style"] for a in shown.all("div") if "height:3px" in a.get("style", ""))
    length = float(next(words.split()[0] for words in shown.words("div")[::-1] if words.endswith(" nm")))
    pixels = float(bar.split("width:")[1].split("px")[0])
    assert pixels == pytest.approx(10 * length / (0.25 * shape[1] / int(image["width"])), abs=0.51)
    assert pixels <= 0.31 * int(image["width"])
