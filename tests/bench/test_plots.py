"""Oracle: made-up records, read back from what is drawn; of the committed pictures, the hash of their records."""

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import plots, records, report
from samplers.extras import how_to_install
from tests.bench.command import run

HERE = {
    "time": "2026-01-02T03:04:05+00:00",
    "machine": {"cpu": "Abacus", "threads": 2, "isa": "BEADS"},
    "versions": {"torch": "2.6.0", "transformers": "5.0.0"},
    "rounds": 5,
}
TIMES = {"max": 4.0, "kernel": 8.0, "alea": 20.0, "torch": 60.0, "transformers": 1000.0}
LOGITS = {"none": 1.0, "k50+p.9": 2.0, "p.9": 4.0, "all": 8.0}  # filters: how many times TIMES[...]

Record = dict[str, Any]


def quantiles(p50: float) -> dict[str, float]:
    return {"p20": 0.9 * p50, "p50": p50, "p80": 1.5 * p50}


def sampled(vocabulary: int, filters: str, **others: Any) -> Record:
    factor = LOGITS[filters] * vocabulary / 1000
    times = {name: quantiles(factor * time) for name, time in TIMES.items()}
    case = {"kind": "peaked", "vocabulary": vocabulary, "batch": 1, "filters": filters, "dtype": "float32"}
    return {**case, "microseconds": times, "skipped": {}, **HERE, **others}


def grown(contestant: str, filters: str, scan: str, slope: float, fixed: float) -> Record:
    sizes = [(1000, 1), (4000, 1), (16000, 1)] if scan == "vocabulary" else [(500, 1), (500, 8)]
    points = [
        {"vocabulary": v, "batch": b, "microseconds": quantiles(slope * v * b / 1000 + fixed + 1)} for v, b in sizes
    ]
    fit = {"us_per_thousand": slope, "fixed_us": fixed}
    return {"contestant": contestant, "filters": filters, "scan": scan, "points": points, "fit": fit, **HERE}


def on_gpu(vocabulary: int, batch: int, filters: str = "p.9") -> Record:
    size = 4 * vocabulary * batch
    times = {
        name: {"cold": quantiles(size / 1e6 * factor + 5), "hot": quantiles(1.0), "graph": True}
        for name, factor in (("alea", 1.5), ("torch", 9.0))
    }
    case = {"kind": "peaked", "vocabulary": vocabulary, "batch": batch, "filters": filters, "dtype": "float32"}
    machine = HERE["machine"] | {"gpu": "Abacus GPU"}  # type: ignore[operator]
    return {**case, "bytes": size, "read_limit": size / 1e6, "microseconds": times, **HERE, "machine": machine}


SAMPLE = [sampled(v, filters) for v in (1000, 8000) for filters in LOGITS]
GROWTH = [
    grown(name, filters, scan, slope, fixed)
    for scan in ("vocabulary", "batch")
    for filters in ("k50+p.9", "p.9")
    for name, slope, fixed in (("alea", 0.5, 10.0), ("somebody", 2.0, -1.0))
]
GPU = [on_gpu(v, b) for v in (1000, 3000) for b in (1, 64)]
RECORDS = {"sample": SAMPLE, "growth": GROWTH, "gpu": GPU}


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A folder of made-up records, with others among them that no picture shows."""
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    other = [
        sampled(1000, "none", kind="flat"),
        sampled(1000, "none", batch=16),
        sampled(1000, "none", dtype="bfloat16"),
    ]
    older = sampled(1000, "none", microseconds={"alea": quantiles(1.0)})
    save(tmp_path, "sample", [older, *other, *SAMPLE, *other])
    save(tmp_path, "growth", GROWTH)
    save(tmp_path, "gpu", [*GPU, *(record | {"dtype": "bfloat16"} for record in GPU)])
    return tmp_path


def save(folder: Path, name: str, records: list[Record]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_speed_up():
    records = [*SAMPLE[:-1], sampled(8000, "all", skipped={"torch": "it has none"})]
    del records[-1]["microseconds"]["torch"]
    panels = plots.speed_up(records).axes
    for axes, missing in zip(panels, (0, 1), strict=True):
        assert texts(axes).count("3 ×") == 4 - missing and texts(axes).count("50 ×") == 4
        assert texts(axes).count("– it has none") == missing
    assert panels[0].get_xlim() == panels[1].get_xlim()


def test_slower_than_a_peer_is_shown():
    times = {"alea": quantiles(10.0), "torch": quantiles(5.0)}
    (axes,) = plots.speed_up([sampled(1000, "none", microseconds=times)]).axes
    (bar,) = axes.containers[0]
    assert bar.get_x() + bar.get_width() == 0.5 and axes.get_xlim()[0] < 0.5 and "0.5 ×" in texts(axes)


def test_roofline():
    for axes, factor in zip(plots.roofline(SAMPLE).axes, (2, 4, 1), strict=True):
        speeds = {line.get_label(): [*line.get_ydata()] for line in axes.lines}
        expected = {name: pytest.approx([4 / (factor * time)] * 2) for name, time in TIMES.items()}  # GB/s: kB over µs
        expected["reading"] = expected.pop("max")
        assert speeds == expected


def test_roofline_of_a_gpu():
    (axes,) = plots.roofline_gpu(GPU).axes
    found = [(line.get_label(), [*line.get_xdata()], [*line.get_ydata()]) for line in axes.lines]
    assert ("reading", [4e3, 12e3, 256e3, 768e3], pytest.approx([1000] * 4)) in found
    for name, factor in (("alea", 1.5), ("torch", 9.0)):
        for sizes in ([4e3, 256e3], [12e3, 768e3]):  # a line a vocabulary
            speeds = [size / (size / 1e6 * factor + 5) / 1e3 for size in sizes]
            assert (name, sizes, pytest.approx(speeds)) in found


def test_growth():
    panels = plots.growth(GROWTH).axes
    filters, others = ("top-k 50, top-p 0.9", "top-p 0.9"), ("batch 1", "vocabulary 500")
    assert [axes.get_title() for axes in panels] == [f"{words}, {other}" for words in filters for other in others]
    for axes in panels:
        labels = {text.get_text() for text in axes.get_legend().get_texts()}
        assert labels == {"alea\n0.5 ns a logit + 10 µs", "somebody\n2 ns a logit − 1 µs"}


@pytest.mark.parametrize("name", plots.PLOTS)
def test_the_note_has_the_provenance(name: str):
    source = plots.PLOTS[name].source
    note = " ".join(plots.PLOTS[name].draw(RECORDS[source]).get_supxlabel().split())
    for words in ("medians of 5 interleaved rounds", "Abacus", "2 threads", "torch 2.6.0", "2026-01-02", source):
        assert words in note


@pytest.mark.parametrize("name", plots.PLOTS)
@pytest.mark.parametrize("kept", [slice(0, 1), slice(1, 2), slice(-1, None)])
def test_few_records_are_enough(name: str, kept: slice):
    wanted = [record for record in RECORDS[plots.PLOTS[name].source] if plots.PLOTS[name].wanted(record)]
    records = json.loads(json.dumps(wanted[kept]))
    for record in records:
        if isinstance(record.get("microseconds"), dict):
            record["microseconds"].pop("max", None)
            record["microseconds"].pop("alea", None)
    assert plots.svg(plots.PLOTS[name].draw(records), records)


def test_written_pictures(results, tmp_path, capsys):
    plots.write(tmp_path / "new/folder")
    printed = capsys.readouterr().out
    for name, plot in plots.PLOTS.items():
        path = tmp_path / f"new/folder/{name}.svg"
        assert ElementTree.fromstring(path.read_bytes()).tag.endswith("svg") and f"renewed {path}" in printed
        assert shown_by(path) == plots.digest(plot.records())
    newest = {name: {id_of(r) for r in plot.records()} for name, plot in plots.PLOTS.items()}
    assert newest["speed-up"] == {id_of(record) for record in SAMPLE} and newest["growth"] == {*map(id_of, GROWTH)}
    assert newest["roofline"] == {id_of(r) for r in SAMPLE if r["filters"] != "all"}
    assert newest["roofline-gpu"] == {*map(id_of, GPU)}


def id_of(record: Record) -> str:
    return json.dumps(record, sort_keys=True)


@pytest.mark.exhaustive
def test_the_same_bytes_again(results, tmp_path):
    for folder in ("once", "again"):
        plots.write(tmp_path / folder)
    for name in plots.PLOTS:
        first, second = ((tmp_path / folder / f"{name}.svg").read_bytes() for folder in ("once", "again"))
        assert first == second and str(tmp_path).encode() not in first


def test_pictures_without_records_are_named(results, tmp_path, capsys):
    (results / "growth.jsonl").unlink()
    save(results, "gpu", [GPU[0] | {"dtype": "bfloat16"}])
    plots.write(tmp_path / "plots")
    printed = capsys.readouterr().out
    for name, source in (("growth", "growth"), ("roofline-gpu", "gpu")):
        assert f"left out {name}.svg: bench/results/{source}.jsonl has no records for it" in printed
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"roofline.svg", "speed-up.svg"}


@pytest.fixture
def readme(tmp_path, monkeypatch) -> Path:
    """A page with a table that is out of date."""
    monkeypatch.setattr(report, "TABLES", {"sample": report.TABLES["sample"]})
    path = tmp_path / "README.md"
    path.write_text("<!-- table: sample -->\nold\n<!-- end -->\n")
    return path


def test_report_renews_both(results, readme, tmp_path):
    assert run(report, "--pages", str(readme), "--plots", str(tmp_path / "plots")) == 0
    assert "| peaked | 1,000 | none |" in readme.read_text() and (tmp_path / "plots/speed-up.svg").exists()


def test_without_matplotlib(results, readme, tmp_path, monkeypatch, capsys):
    monkeypatch.delattr("bench.plots")
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] + ["bench.plots"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(report, "--pages", str(readme)) == 0
    assert "| peaked | 1,000 | none |" in readme.read_text()
    needed = f"alea bench report --plots needs matplotlib: {how_to_install('plot')}"
    assert f"no pictures: {needed}\n" in capsys.readouterr().out
    readme.write_text("<!-- table: sample -->\nold\n<!-- end -->\n")
    with pytest.raises(RuntimeError) as error:
        run(report, "--pages", str(readme), "--plots", str(tmp_path / "plots"))
    assert str(error.value) == needed and "old" not in readme.read_text()
    assert not (tmp_path / "plots").exists()


@pytest.mark.parametrize("background", ["#FFFFFF", "#0D1117"])  # of GitHub's pages
def test_every_colour_can_be_read(background: str):
    """WCAG's contrast: 3 to 1 for what is drawn, and no less than 4.3 for the text in grey."""
    for color, least in [(plots.GREY, 4.3), *((color, 3) for color, _ in plots.STYLES.values())]:
        light, dark = sorted((luminance(color), luminance(background)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= least, color


def luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def shown_by(path: Path) -> str:
    """The hash that a picture holds."""
    found = ElementTree.fromstring(path.read_bytes()).find(".//{http://purl.org/dc/elements/1.1/}identifier")
    assert found is not None and found.text
    return found.text


@pytest.mark.parametrize("name", plots.PLOTS)
def test_committed_pictures_show_the_committed_records(name: str):
    """If this fails: `alea bench report`."""
    path, records = plots.FOLDER / f"{name}.svg", plots.PLOTS[name].records()
    assert path.exists() == bool(records)
    assert not records or shown_by(path) == plots.digest(records)
