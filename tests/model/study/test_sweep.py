"""Oracle: what the tutorial shows (top-p → 0 repeats itself, T = 10 destroys the text); runs that were not stopped."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.colors import LinearSegmentedColormap, to_rgb

import samplers
from model import Llama, Tokenizer, generate
from model.cli import main
from model.commands import sweep as command
from model.study import sweep, sweep_plots
from model.study.diversity import self_bleu
from model.study.sweep import MEASURES, Point, Settings, Spread, Sweep, over_seeds
from samplers import SamplingParams
from samplers.extras import how_to_install

pytestmark = pytest.mark.exhaustive  # its commands take seconds each

SMALL = Settings(temperature=(0.5, 1, 10), top_p=(0.01, 1), seeds=(0, 1), samples=3, max_new_tokens=12)
FILES = ("sweep.json", "sweep.csv", "texts.jsonl")
ARGUMENTS = ("-n", "6", "--temperature", "0.5", "10", "--top-p", "0", "1", "--seeds", "0", "1", "--samples", "2")


@pytest.fixture(scope="module")
def storyteller() -> tuple[Llama, Tokenizer]:
    return Llama.from_pretrained(), Tokenizer.from_pretrained()


@pytest.fixture(scope="module")
def folder(storyteller, tmp_path_factory) -> Path:
    """SMALL, measured in one go."""
    path = tmp_path_factory.mktemp("sweep") / "whole"
    sweep.run(*storyteller, SMALL, path)
    return path


@pytest.fixture(scope="module")
def whole(folder) -> Sweep:
    return sweep.load(folder)


def measured(whole: Sweep, temperature: float, top_p: float, name: str) -> Spread:
    return over_seeds(whole.rows)[Point(temperature, top_p, 0, 0.0, 0)][name]


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def stopping(after: int) -> Callable[[int], None]:
    def stop(done: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    return stop


# What is measured.


@pytest.mark.exhaustive
def test_top_p_towards_0_repeats_itself(whole):
    for temperature in (0.5, 1):
        assert measured(whole, temperature, 0.01, "self_bleu") == (100.0, 0.0)
        assert measured(whole, temperature, 0.01, "kept") == (1.0, 0.0)
        assert measured(whole, temperature, 0.01, "entropy") == (0.0, 0.0)
    texts = [text["text"] for text in whole.texts if text["top_p"] == 0.01 and text["temperature"] < 10]
    assert set(texts) == {whole.greedy["text"]}


@pytest.mark.exhaustive
def test_temperature_10_destroys_the_text(whole):
    cold, hot = (measured(whole, temperature, 1, "model_logprob").mean for temperature in (0.5, 10))
    assert hot < -9 < -3 < cold
    assert measured(whole, 10, 1, "self_bleu").mean < 5
    assert measured(whole, 10, 1, "entropy").mean > 8  # ln 4096 = 8.3


def test_what_is_drawn_is_less_probable_than_the_greedy_text(whole):
    for temperature in SMALL.temperature:
        assert measured(whole, temperature, 1, "total_logprob").mean <= whole.greedy["total_logprob"]


def test_a_row_from_its_texts(whole, storyteller):
    """Drawn again here, with a distribution a step from filter_logits."""
    point = Point(1.0, 1.0, 0, 0.0, 1)
    row = next(row for row in whole.rows if [row[name] for name in sweep.KEYS] == list(point))
    (texts,) = generate(*storyteller, SMALL.prompt, max_new_tokens=12, num_return_sequences=3, seed=1, **OFF)
    assert [text["text"] for text in whole.texts if text["temperature"] == 1 and text["top_p"] == 1][3:] == [
        text.text for text in texts
    ]
    logprobs = [logprob for text in texts for logprob in text.model_logprobs]
    assert row["self_bleu"] == pytest.approx(self_bleu([text.text for text in texts]), rel=1e-5)
    assert row["model_logprob"] == pytest.approx(sum(logprobs) / len(logprobs), rel=1e-5)
    assert row["total_logprob"] == pytest.approx(sum(logprobs) / 3, rel=1e-5)
    assert row["tokens"] == len(logprobs)


OFF = {"temperature": 1.0, "top_p": 1.0}  # the storyteller's own generation_config says otherwise


def test_final_distributions(storyteller):
    model, tokenizer = storyteller
    params = SamplingParams(temperature=0.7, top_p=0.9)
    prompt = tokenizer.encode("The king")
    text = generate(model, tokenizer, [prompt], max_new_tokens=9, seed=3, temperature=0.7, top_p=0.9)[0][0]
    entropies, kept = sweep.final_distributions(model, prompt, text.ids, params)
    with torch.inference_mode():
        for step in range(9):
            logits = model(torch.tensor([prompt + text.ids[:step]]))[0, -1]
            filtered = samplers.filter_logits(logits, params)[0].double()
            p = filtered.softmax(-1)
            expected = -(p[p > 0] * p[p > 0].log()).sum()
            assert entropies[step] == pytest.approx(float(expected), abs=1e-4)
            assert kept[step] == int((p > 0).sum())
            assert text.logprobs[step] == pytest.approx(float(p[text.ids[step]].log()), abs=1e-4)


def test_the_models_own_settings_are_off(storyteller, monkeypatch):
    model, tokenizer = storyteller
    settings = Settings(samples=2, max_new_tokens=8)
    before = sweep.measure(model, tokenizer, settings, settings.points()[0])
    monkeypatch.setattr(model, "generation_config", {"top_k": 1, "repetition_penalty": 9.0, "logit_bias": {3: 9.0}})
    assert sweep.measure(model, tokenizer, settings, settings.points()[0]) == before


def test_one_seed_has_no_spread():
    assert sweep.spread([3.0]) == Spread(3.0, None)
    assert command.in_words(Spread(-3.14, None), 1) == "−3.1"
    assert command.in_words(Spread(-3.14, 0.25), 2) == "−3.14 ± 0.25"


# Resuming.


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [0, 7])
def test_resumed_is_as_if_never_stopped(storyteller, folder, tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        sweep.run(*storyteller, SMALL, tmp_path, stopping(after))
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 1 + after
    progress: list[int] = []
    sweep.run(*storyteller, SMALL, tmp_path, progress.append)
    assert progress == list(range(after, 13))
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(("name", "cut"), [("sweep.csv", 20), ("sweep.csv", 1), ("texts.jsonl", 5)])
def test_what_was_cut_off_is_measured_again(storyteller, folder, tmp_path, name, cut):
    """As after a power cut: half a line at the end of either file, a character halved."""
    for path in FILES:
        (tmp_path / path).write_bytes((folder / path).read_bytes())
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-cut] + b"\xe2" * (name == "texts.jsonl"))
    progress: list[int] = []
    sweep.run(*storyteller, SMALL, tmp_path, progress.append)
    assert progress == [11, 12]
    assert contents(tmp_path) == contents(folder)


def copied(folder: Path, to: Path) -> Path:
    for path in FILES:
        (to / path).write_bytes((folder / path).read_bytes())
    return to


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 4}, "samples is 3, not 4"),
        ({"top_p": (0.01,)}, r"top_p is \[0.01, 1.0\], not \[0.01\]"),
        ({"prompt": "The"}, "prompt is 'Once upon a time', not 'The'"),
    ],
)
def test_other_settings_are_refused(storyteller, folder, tmp_path, changes, message):
    before = contents(copied(folder, tmp_path))
    with pytest.raises(ValueError, match=f"sweep.json: of another sweep: {message}.*: give another --out"):
        sweep.run(*storyteller, replace(SMALL, **changes), tmp_path)
    assert contents(tmp_path) == before


def test_another_model_is_refused(storyteller, folder, tmp_path, monkeypatch):
    copied(folder, tmp_path)
    weight = storyteller[0].norm.weight
    monkeypatch.setattr(weight, "data", -weight.data)
    with pytest.raises(ValueError, match="its model wrote another greedy text"):
        sweep.run(*storyteller, SMALL, tmp_path)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("sweep.csv", "0.5,0.01,0,0.0,1,", "0.5,0.02,0,0.0,1,", "sweep.csv line 3: must be the row of temperature 0.5"),
        ("sweep.csv", "distinct_2", "distinct_4", "sweep.csv line 1: must be temperature,"),
        ("sweep.json", "{", "", "sweep.json: must be written by alea sweep"),
    ],
)
def test_what_no_sweep_wrote_is_refused(storyteller, folder, tmp_path, name, old, new, message):
    path = copied(folder, tmp_path) / name
    path.write_text(path.read_text().replace(old, new, 1))
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        sweep.run(*storyteller, SMALL, tmp_path)
    assert contents(tmp_path) == before


def test_results_without_settings_are_refused(storyteller, tmp_path):
    (tmp_path / "sweep.csv").write_text("mine")
    with pytest.raises(ValueError, match=r"got sweep\.csv without a sweep\.json: give another --out"):
        sweep.run(*storyteller, SMALL, tmp_path)
    assert (tmp_path / "sweep.csv").read_text() == "mine"


@pytest.mark.parametrize("name", ["texts.jsonl", "self_bleu.png"])
def test_files_of_somebody_else_are_refused_before_the_model_is_loaded(capsys, tmp_path, name):
    (tmp_path / name).write_text("mine")
    status, _, err = run(capsys, "nowhere", "--out", str(tmp_path))
    assert status == 2 and f"got {name} without a sweep.json: give another --out, or --overwrite" in err
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


@pytest.mark.exhaustive
@pytest.mark.parametrize("there", ["of another run", "broken", "no sweep's"])
def test_anew_where_asked_for(storyteller, folder, tmp_path, there):
    """The files are those of a sweep in a new folder."""
    if there == "no sweep's":
        (tmp_path / "texts.jsonl").write_text("mine")
    else:
        copied(folder, tmp_path)
    if there == "broken":
        (tmp_path / "sweep.json").write_text("mine\n")
    (tmp_path / "self_bleu.svg").write_text("of the rows before")
    settings = replace(SMALL, temperature=(1,), seeds=(3,))
    assert sweep.run(*storyteller, settings, tmp_path, overwrite=True).settings == settings
    sweep.run(*storyteller, settings, tmp_path / "new")
    assert contents(tmp_path) == contents(tmp_path / "new") and not (tmp_path / "self_bleu.svg").exists()


@pytest.mark.exhaustive
def test_with_the_same_settings_nothing_is_begun_anew(storyteller, folder, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        sweep.run(*storyteller, SMALL, tmp_path, stopping(7))
    progress: list[int] = []
    sweep.run(*storyteller, SMALL, tmp_path, progress.append, overwrite=True)
    assert progress[0] == 7 and contents(tmp_path) == contents(folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_process_is_refused_by_name(storyteller, folder, tmp_path, overwrite):
    """While the first has measured seven rows."""

    def second(done: int) -> None:
        if done == 7:
            with pytest.raises(BlockingIOError, match=r"sweep\.csv: another alea is writing it"):
                sweep.run(*storyteller, replace(SMALL, samples=2), tmp_path, overwrite=overwrite)

    sweep.run(*storyteller, SMALL, tmp_path, second)
    assert contents(tmp_path) == contents(folder)


# The pictures.


def several(whole: Sweep, panels: int) -> Sweep:
    """The same rows once more for each of several top-k."""
    top_k = tuple(range(0, 10 * panels, 10))
    rows, texts = ([line | {"top_k": k} for k in top_k for line in lines] for lines in (whole.rows, whole.texts))
    return Sweep(replace(whole.settings, top_k=top_k), whole.greedy, rows, texts)


@pytest.mark.exhaustive
def test_pictures_are_written_and_the_same_again(whole, tmp_path):
    paths = sweep_plots.write(whole, tmp_path)
    names = [f"{name}.{kind}" for name in sweep.PICTURES for kind in ("svg", "png")]
    assert [path.name for path in paths] == names
    first = [path.read_bytes() for path in paths]
    for path, data in zip(paths, first, strict=True):
        assert data.startswith(b"\x89PNG\r\n") if path.suffix == ".png" else ElementTree.fromstring(data) is not None
    assert [path.read_bytes() for path in sweep_plots.write(whole, tmp_path)] == first


@pytest.mark.parametrize("panels", [2, 4, 5])
def test_a_panel_for_each_top_k(whole, panels):
    for draw in (sweep_plots.heat_map, sweep_plots.quality_diversity):
        titles = [axes.get_title(loc="left") or axes.get_title() for axes in draw(several(whole, panels)).axes]
        assert titles == ["no top-k", *(f"top-k {10 * k}" for k in range(1, panels))]


def test_the_heat_map_shows_mean_and_spread(whole):
    (axes,) = sweep_plots.heat_map(whole).axes
    shown = {(round(text.get_position()[0]), text.get_text()) for text in axes.texts}
    hot = measured(whole, 10, 1, "self_bleu")
    assert {(0, "100.0"), (0, "± 0.0"), (1, f"{hot.mean:.1f}"), (1, f"± {hot.sd:.1f}")} <= shown


def test_the_strips_hold_every_text(whole):
    (axes,) = sweep_plots.total_logprob(whole).axes
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert sorted(dots) == sorted(text["total_logprob"] for text in whole.texts if text["top_p"] == 1)
    assert any(f"greedy {whole.greedy['total_logprob']:.0f}".replace("-", "−") == t.get_text() for t in axes.texts)


def luminance(color) -> float:
    """Relative luminance (WCAG 2.1)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colors_can_be_read_on_white_and_on_a_dark_page(whole):
    settings = replace(whole.settings, temperature=tuple(range(1, 22)))
    for color in sweep_plots.colors(replace(whole, settings=settings)).values():
        assert contrast(color, "white") >= 3 and contrast(color, "#0d1117") >= 3


@pytest.mark.parametrize("self_bleu", range(0, 101, 5))
def test_the_text_of_a_cell_has_the_greater_contrast(self_bleu):
    cell = LinearSegmentedColormap.from_list("self_bleu", sweep_plots.LIGHT_TO_DARK)(self_bleu / 100)
    chosen, other = ("white", "black") if self_bleu >= sweep_plots.WHITE_ON else ("black", "white")
    assert contrast(cell, chosen) >= contrast(cell, other)


def test_every_top_p_has_its_marker(whole):
    (axes,) = sweep_plots.quality_diversity(whole).axes
    used = [line.get_marker() for line in axes.lines if len(line.get_xdata()) == 1]
    assert sorted(used) == sorted([*sweep_plots.markers(whole).values()] * len(whole.settings.temperature))


# The command.


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = main(("sweep", *arguments))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command(capsys, tmp_path):
    status, out, err = run(capsys, *ARGUMENTS, "--out", str(tmp_path / "new" / "one"))
    assert (status, err) == (0, "")
    assert "100.0 ± 0.0" in out and "Mean ± sd over seeds 0, 1; 2 texts a seed" in out
    assert out.endswith(
        "one: sweep.csv (8 rows), texts.jsonl (16 texts), sweep.json, self_bleu.svg, quality_diversity.svg, "
        "total_logprob.svg (and .png)\n"
    )
    folder = tmp_path / "new" / "one"
    assert len(list(folder.iterdir())) == 3 + 6
    assert json.loads((folder / "sweep.json").read_text())["settings"]["model"] == "built-in"
    assert (folder / "sweep.csv").read_text().splitlines()[0] == ",".join([*sweep.KEYS, *MEASURES])
    again = run(capsys, *ARGUMENTS, "--out", str(folder))
    assert again == (status, out, err)


def test_ctrl_c_tells_how_to_go_on(capsys, tmp_path, monkeypatch):
    measure, calls = sweep.measure, iter(range(3))
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "measure", lambda *given: measure(*given) if next(calls) < 2 else interrupt())
        status, out, err = run(capsys, *ARGUMENTS, "--out", str(tmp_path))
    assert (status, out) == (130, "")
    assert err == f"stopped: 2 of 8 rows are in {tmp_path}; the same command goes on from there\n"
    assert run(capsys, *ARGUMENTS, "--out", str(tmp_path))[0] == 0


def interrupt() -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--top-p", "0.5", "1.5"), "top_p must be in [0, 1], got 1.5"),
        (("--temperature", "-1"), "temperature must be 0, or in [1e-6, 1e6], got -1.0"),
        (("--top-k", "-1"), "top_k must be an integer >= 0, got -1"),
        (("--epsilon-cutoff", "1"), "epsilon_cutoff must be in [0, 1), got 1.0"),
        (("--seeds", "1", "1"), "seeds must hold different values, got 1 2 times"),
        (("--samples", "1"), "samples must be an integer >= 2, got 1"),
        (("-n", "0"), "max_new_tokens must be an integer >= 1, got 0"),
        (("-n", "9999"), "5 prompt tokens + 9999 new = 10004 > 512"),
        (("nowhere",), "nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(capsys, tmp_path, arguments, message):
    status, out, err = run(capsys, *arguments, "--out", str(tmp_path / "new"))
    assert status == 2 and message in err and err.startswith("alea sweep: ") and err.count("\n") == 1
    assert out == "" and not (tmp_path / "new").exists()


def test_out_must_be_a_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    assert "--out must be a folder or a new name" in run(capsys, "--out", str(tmp_path / "file"))[2]


@pytest.mark.parametrize("package", command.PACKAGES)
def test_a_missing_package_is_named_before_anything_is_loaded(capsys, tmp_path, monkeypatch, package):
    find = command.importlib.util.find_spec
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None if name == package else find(name))
    status, _, err = run(capsys, "--out", str(tmp_path / "new"))
    assert (status, err) == (2, f"alea sweep: needs {package}: {how_to_install('study')}\n")


def test_pictures_without_matplotlib(whole, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r"need matplotlib: pip install 'alea-sampling\[study\]'"):
        sweep_plots.write(whole, tmp_path)


def test_quick_leaves_what_is_given():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    quick = command.read_settings(parser.parse_args(["--quick", "--temp", "0.7"]))
    assert (quick.temperature, quick.samples) == ((0.7,), command.QUICK["samples"])
    assert command.read_settings(parser.parse_args([])).temperature == tuple(command.FULL["temperature"])
