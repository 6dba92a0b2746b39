"""The trace page. Oracles: the golden rows, `samplers.trace` and `samplers.sample`, in Node and in a real browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import Llama, Tokenizer
from model.study import trace_page
from model.study.decoding_trace import DecodingTrace, trace_decoding
from model.study.page import ASSETS
from samplers import SamplingParams, Trace, sample, trace
from samplers.reference.draw import draw
from samplers.reference.fixed_point import weights
from samplers.reference.sampler import keep
from tests.conftest import examples
from tests.model.browser import Browser
from tests.model.study.shown import assert_shown, moved
from tests.samplers import golden, strategies

NODE = shutil.which("node")
CHECKED = "document.getElementById('check').textContent !== ''"
NASTY = "He said \"<script>alert(1)</script>\" & 'left' <b>\n日本 --> ]]> {{ data }}"
SETTINGS = {"model": "storyteller <i>&</i>", "seed": "7", "alea": "0.1.0", "date": "2025-01-01"}


def traced(prompt: str, steps: int, **params: Any) -> DecodingTrace:
    arguments = dict(seed=7, max_new_tokens=steps, eos_token_id=())
    return trace_decoding(
        Llama.from_pretrained(), Tokenizer.from_pretrained(), prompt, SamplingParams(**params), **arguments
    )


# ---- engine.js in Node ----

SERVER = """
const engine = require(process.argv[1]);
const read = (text) => new Float32Array(new Uint8Array(Buffer.from(text, "base64")).buffer);
function answer({ logits, allowed, changed, params, keys }) {
  const bits = engine.random_bits(...keys.map(BigInt));
  const mask = allowed && Uint8Array.from(allowed);
  const drawn = engine.follow(engine.row_of(read(logits), mask, changed && read(changed)), params, bits);
  const { stages, kept, token, weight, total, u, place } = drawn;
  const after = stages.map(({ name, kept }) => [name, kept.ids.length, String(kept.total), engine.entropy_of(kept)]);
  const interval = engine.interval(kept, place).map(String);
  return { bits: String(bits), token, weight, total: String(total), u: String(u), ids: [...kept.ids], after, interval };
}
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const request = JSON.parse(line);
  if (request.call) {
    const values = engine[request.call](read(request.x), ...request.more.map(BigInt));
    console.log(JSON.stringify(typeof values === "number" ? values : [...values]));
    return;
  }
  const started = process.cpuUsage(); // of this process, as the cores are shared
  const result = answer(request);
  const { user, system } = process.cpuUsage(started);
  console.log(JSON.stringify({ ...result, ms: (user + system) / 1000 }));
});
"""


class Engine:
    """engine.js in one Node process, a line a draw."""

    def __init__(self) -> None:
        command = [NODE, "-e", SERVER, str(ASSETS / "engine.js")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def draw(
        self,
        logits: np.ndarray,
        changed: np.ndarray | None,
        params: SamplingParams,
        *keys: int,
        allowed: np.ndarray | None = None,
    ) -> dict[str, Any]:
        same = changed is None or np.array_equal(logits, changed)
        request = {
            "logits": trace_page.base64_floats(logits),
            "allowed": None if allowed is None else allowed.tolist(),
            "changed": None if same else trace_page.base64_floats(changed),
            "params": trace_page.slider_params(params),
            "keys": [str(key) for key in keys],
        }
        return self.ask(request)

    def call(self, name: str, x: np.ndarray, *more: int) -> Any:
        """One function by itself, of float32 and integers."""
        return self.ask({"call": name, "x": trace_page.base64_floats(x), "more": [str(one) for one in more]})

    def ask(self, request: dict[str, Any]) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    if NODE is None:
        pytest.skip("node is missing")
    one = Engine()
    yield one
    one.process.stdin.close()
    one.process.wait()


def valid(name: str) -> list[golden.GoldenRow]:
    return [row for row in golden.read(name) if row.drawn[0] >= 0]


@pytest.mark.parametrize("name", ["rows", "penalties", "clamped"])
def test_golden_rows(engine: Engine, name: str):
    rows = valid(name)
    assert len(rows) >= 60
    for row in rows:
        changed = row.logits if row.penalised is None else row.penalised
        got = engine.draw(row.logits, changed, row.params, *row.seeds.values())
        assert (got["token"], got["weight"], int(got["total"]), len(got["ids"])) == row.drawn
        assert golden.digest(np.isin(np.arange(len(changed)), got["ids"])) == row.kept_digest
        assert row.bits is None or int(got["bits"]) == row.bits


def assert_followed(got: dict[str, Any], x: np.ndarray, params: SamplingParams, seed: int, position: int, stream: int):
    """Stage by stage as `trace`, and as `sample`."""
    t = trace(x, params, seed=seed, position=position, stream=stream)
    assert [one[:2] for one in got["after"]] == [[stage.name, stage.survivors] for stage in t.stages]
    assert [int(got[name]) for name in ("bits", "u", "token", "weight", "total")] == [
        t.bits, t.u, t.token, t.weight, t.total,
    ]  # fmt: skip
    assert tuple(map(int, got["interval"])) == t.chosen.interval
    assert got["ids"] == keep(x, params).ids.tolist()
    assert [one[3] for one in got["after"]] == pytest.approx([stage.entropy for stage in t.stages], abs=1e-9)
    out = sample(x, params, seed=seed, position=position, stream=stream)
    assert [int(column[0]) for column in (out.tokens, out.weight, out.total, out.kept)] == [
        got["token"], got["weight"], int(got["total"]), len(got["ids"]),
    ]  # fmt: skip


@examples(150)
@given(strategies.rows(), strategies.params(extreme=True), st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3))
def test_random_rows(engine: Engine, x: np.ndarray, params: SamplingParams, keys: tuple[int, int, int]):
    assert_followed(engine.draw(x, x, params, *keys), x, params, *keys)


@examples(100)
@given(strategies.rows(), strategies.params(extreme=True), st.integers(0, 2**32), st.sampled_from([0.02, 0.5, 0.98]))
def test_masks(engine: Engine, x: np.ndarray, params: SamplingParams, seed: int, share: float):
    allowed = np.random.default_rng(seed).random(len(x)) < share
    allowed[np.argmin(x)] = True
    if allowed.all() or not np.isfinite(x[allowed].max()):
        return
    t = trace(x, params, seed=seed, allowed=allowed)
    got = engine.draw(x, None, params, seed, 0, 0, allowed=allowed)
    assert [one[:2] for one in got["after"]] == [[stage.name, stage.survivors] for stage in t.stages]
    assert [one[3] for one in got["after"]] == pytest.approx([stage.entropy for stage in t.stages], abs=1e-9)
    assert (got["token"], got["weight"], int(got["total"])) == (t.token, t.weight, t.total)


def test_golden_weights(engine: Engine):
    d, w = golden.read_weights()
    assert engine.call("weights", d) == w.tolist()


def test_weights(engine: Engine):
    """Every rounding of its own: a million distances, near 0 and far."""
    rng = np.random.default_rng(2)
    d = -np.concatenate([60 * rng.random(500_000), rng.exponential(2, 500_000), 2.0 ** -np.arange(150)])
    d = np.maximum(d, -60).astype(np.float32)
    assert engine.call("weights", d) == weights(d).tolist()


def test_draw_at_the_ends_of_the_intervals(engine: Engine):
    w = np.array([0, 5, 3, 0, 2, 0], np.float32)
    for u in range(10):
        for bits in (-(-u * 2**64 // 10), (u + 1) * 2**64 // 10 - 1):
            assert engine.call("draw", w, bits) == draw(w.astype(np.int64), bits)


def test_large_vocabulary(engine: Engine):
    """Totals beyond 2^53; and at V = 32,000 a slider must answer at once."""
    rng, times = np.random.default_rng(1), []
    params = SamplingParams(temperature=0.9, top_k=5000, top_p=0.95, min_p=1e-5, epsilon_cutoff=1e-6)
    for size, kind in ((200_000, "flat"), *((32_000, kind) for kind in strategies.KINDS)):
        x = strategies.row(kind, size, rng)
        for p in (SamplingParams(), SamplingParams(top_p=0.9, typical_p=0.8), SamplingParams(eta_cutoff=1e-4), params):
            got = engine.draw(x, x, p, 1, 2, 3)
            assert_followed(got, x, p, 1, 2, 3)
            times += [got["ms"]] if size == 32_000 else []
    print(f"V = 32,000: {np.median(times):.0f} ms a draw, at most {max(times):.0f}")
    assert np.median(times) < 100


def test_sums_of_great_and_small_weights(engine: Engine):
    """A total beyond 2^53 whose last bits count."""
    rng = np.random.default_rng(3)
    x = np.where(rng.random(60_000) < 0.5, 0, rng.uniform(-25, -12, 60_000)).astype(np.float32)
    for p in (SamplingParams(), SamplingParams(top_p=0.99999), SamplingParams(typical_p=0.99999)):
        assert_followed(engine.draw(x, x, p, 4, 5, 6), x, p, 4, 5, 6)
    assert trace(x, seed=0).total > 2**53 and trace(x, seed=0).total % 2 == 1


def test_one_zero_of_two(engine: Engine):
    x = np.array([0.0, -0.0, 0.0, -0.0, -1.0, 0.0, -0.0], np.float32)[[1, 0, 2, 3, 4, 5, 6]]
    for p in (
        SamplingParams(top_p=0.5),
        SamplingParams(top_k=2),
        SamplingParams(temperature=0),
        SamplingParams(min_p=1),
    ):
        assert_followed(engine.draw(x, x, p, 1, 1, 1), x, p, 1, 1, 1)


def test_fraction_is_exact(engine: Engine):
    """Through kept sets at hairline fractions: the neighbours of every mass that a prefix of 2^-i can have."""
    x = np.log(2.0 ** -np.arange(1, 31)).astype(np.float32)
    for i in range(1, 30):
        for q in (np.nextafter(1 - 2.0**-i, 0), 1 - 2.0**-i, np.nextafter(1 - 2.0**-i, 1), 2.0**-i, 5e-324):
            p = SamplingParams(top_p=float(q), typical_p=float(q), eta_cutoff=float(q))
            assert_followed(engine.draw(x, x, p, 5, i, 0), x, p, 5, i, 0)


# ---- the file ----


@pytest.fixture(scope="session")
def nasty() -> DecodingTrace:
    return traced(NASTY, 3, repetition_penalty=1.3, top_p=0.9)


@pytest.fixture(scope="session")
def story() -> DecodingTrace:
    return traced("Once upon a time there was a king", 12, temperature=0.8, top_k=50, top_p=0.9, epsilon_cutoff=0.01)


@pytest.fixture(scope="session")
def masked(story: DecodingTrace) -> DecodingTrace:
    """The story's rows with every third token excluded."""

    def again(step: Trace) -> Trace:
        keys = dict(seed=step.seed, position=step.position, stream=[step.stream])
        return trace(step.logits, step.params, **keys, allowed=np.arange(step.vocabulary) % 3 != 0)

    return replace(story, steps=[again(step) for step in story.steps])


def test_nothing_comes_from_elsewhere(nasty: DecodingTrace):
    page = trace_page.render(nasty, SETTINGS)
    namespace = '"http://www.w3.org/2000/svg"'  # a name, never fetched
    assert page.count(namespace) == 1 and "http:" not in page.replace(namespace, "") and "https:" not in page
    assert not re.search(r"@import|url\((?!#)|\bsrc=|innerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(", page)
    assert re.findall(r'href="[^"]*"', page) == ['href="data:,"']
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:" in page


def test_texts_stay_inside_the_json(nasty: DecodingTrace):
    page = trace_page.render(nasty, SETTINGS)
    assert page.count("<script") == page.count("</script>") == 2
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1]
    assert "<" not in inside and json.loads(inside)["settings"] == SETTINGS


def test_full_logits_are_embedded(nasty: DecodingTrace, story: DecodingTrace):
    """The trap: a stored top-k renormalised."""
    for decoding, differs in ((nasty, True), (story, False)):
        steps = trace_page.page_data(decoding, {})["steps"]
        for step, kept in zip(steps, decoding.steps, strict=True):
            for name in ("logits", "changed") if differs else ("logits",):
                floats = np.frombuffer(base64.b64decode(step[name]), "<f4")
                np.testing.assert_array_equal(floats, getattr(kept, name))
            assert (step["changed"] is not None) == differs
    size = len(trace_page.render(story, SETTINGS))
    assert size < 12 * 4096 * 4 * 4 / 3 + 150_000


def test_refuses(story: DecodingTrace):
    with pytest.raises(ValueError, match="at least one step"):
        trace_page.render(replace(story, steps=[]), SETTINGS)


# ---- in the browser ----


@pytest.fixture(scope="session")
def pages(request: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {name: folder / f"{name}.html" for name in ("nasty", "story", "masked")}
    for name, path in found.items():
        path.write_text(trace_page.render(request.getfixturevalue(name), SETTINGS), encoding="utf-8")
    return found


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["story", "nasty"])
def test_a_grid_of_slider_positions(browser: Browser, pages: dict[str, Path], name: str, request: Any):
    decoding: DecodingTrace = request.getfixturevalue(name)
    browser.open(pages[name].as_uri(), CHECKED)
    grid = [
        {"temperature-slider": t, "top_k-slider": k, "top_p-slider": p, "epsilon_cutoff-slider": e}
        for t in (0, 1, 330, 700, 1000) for k in (0, 120, 480) for p in (0, 500, 950, 1000) for e in (0, 350, 800)
    ]  # fmt: skip
    rest = [{"min_p-slider": m, "typical_p-slider": t, "eta_cutoff-slider": e, "min_tokens_to_keep-slider": n}
            for m, t, e, n in ((700, 1000, 0, 0), (0, 800, 0, 300), (500, 900, 600, 0), (0, 0, 400, 200))]  # fmt: skip
    rest[0] |= {"temperature-slider": 650, "top_k-slider": 0, "top_p-slider": 1000, "epsilon_cutoff-slider": 0}
    seen = set()
    for step in range(0, len(decoding.steps), 5):
        browser.run(f"document.querySelectorAll('#strip button')[{step}].click()")
        for result in moved(browser, (grid if step == 0 else grid[step::11]) + rest):
            seen.add((step, assert_shown(result, decoding.steps[step])))
    assert len(seen) > 150 and browser.problems == []


@pytest.mark.exhaustive
def test_exact_values_can_be_typed(browser: Browser, pages: dict[str, Path], story: DecodingTrace):
    browser.open(pages["story"].as_uri(), CHECKED)
    typed = [
        {"temperature": "0.7123456789", "top_k": "37", "top_p": "0.8999999999", "epsilon_cutoff": "3e-4"},
        {"temperature": "1e-6", "top_p": "0.1"},
        {"temperature": "1000000", "top_p": "1", "top_k": "0", "epsilon_cutoff": "5e-324"},
    ]
    for result, asked in zip(moved(browser, typed), typed, strict=True):
        params = assert_shown(result, story.steps[0])
        assert [getattr(params, name) for name in asked] == [float(value) for value in asked.values()]
    assert browser.problems == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "wrong"), [("top_p", "1.2"), ("temperature", "-1"), ("top_k", "2.5"), ("min_p", "")])
def test_wrong_numbers_are_refused_as_by_the_engine(browser: Browser, pages: dict[str, Path], name: str, wrong: str):
    browser.open(pages["story"].as_uri(), CHECKED)
    before = moved(browser, [{}])[0]["total"]
    assert moved(browser, [{name: wrong}])[0]["total"] == before
    with pytest.raises((ValueError, TypeError)) as refused:
        SamplingParams(**{name: float(wrong or "nan")})
    said = browser.run("document.getElementById('problem').textContent")
    assert str(refused.value).startswith(f"{said}, got ") and said.startswith(f"{name} must be ")
    assert browser.run(f"document.getElementById('{name}').getAttribute('aria-invalid')") == "true"
    browser.run("document.getElementById('reset').click()")
    assert browser.run("document.getElementById('problem').textContent") == "" and browser.problems == []


@pytest.mark.exhaustive
def test_reset_shows_the_draw_again(browser: Browser, pages: dict[str, Path], story: DecodingTrace):
    browser.open(pages["story"].as_uri(), CHECKED)
    moved(browser, [{"temperature-slider": 1000, "top_p-slider": 1000, "epsilon_cutoff-slider": 0, "min_p": "1"}])
    browser.run("document.getElementById('reset').click()")
    result = moved(browser, [{}])[0]
    assert assert_shown(result, story.steps[0]) == story.steps[0].params
    assert int(result["token"]) == story.steps[0].token
    assert browser.run("document.getElementById('reset').disabled") and browser.problems == []


@pytest.mark.exhaustive
def test_keys(browser: Browser, pages: dict[str, Path], story: DecodingTrace):
    browser.open(pages["story"].as_uri(), CHECKED)
    heading = "document.getElementById('step-heading').textContent"
    for key, step in (("Right", 2), ("Right", 3), ("Left", 2), ("End", 12), ("Right", 12), ("Home", 1)):
        browser.press(f"Arrow{key}" if key in ("Left", "Right") else key)
        assert browser.run(heading).startswith(f"Step {step} of 12: {story.piece(story.ids[step - 1])}")
        assert browser.run("document.querySelectorAll('[aria-current]').length") == 1
    browser.run("document.getElementById('top_p-slider').focus()")
    browser.press("ArrowLeft")  # the slider's, now
    assert browser.run(heading).startswith("Step 1 ")
    assert browser.run("document.getElementById('top_p').value") == "0.899"
    assert_shown(moved(browser, [{}])[0], story.steps[0])
    assert browser.problems == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["story", "nasty", "masked"])
def test_the_page_says_that_it_agrees(browser: Browser, pages: dict[str, Path], name: str):
    browser.open(pages[name].as_uri(), CHECKED)
    assert "equal the engine’s, integer for integer" in browser.run("document.getElementById('check').textContent")
    assert browser.problems == []


@pytest.mark.exhaustive
def test_a_mask_is_shown_as_a_stage_that_cuts(browser: Browser, pages: dict[str, Path], masked: DecodingTrace):
    browser.open(pages["masked"].as_uri(), CHECKED)
    stage = masked.steps[0].stages[1]
    cells = browser.run("[...document.querySelectorAll('#stages tbody tr:nth-child(2) > *')].map((c) => c.textContent)")
    assert cells[0] == "allowed" and cells[2] == f"{stage.survivors:,}" and cells[3] == f"{100 * stage.kept_mass:.1f} %"
    cut = sum(one.cut_by == "allowed" for one in masked.steps[0].candidates)
    assert browser.run("document.getElementById('candidates').textContent.split('cut by allowed').length") == 1 + cut
    assert cut > 0 and browser.problems == []


@pytest.mark.exhaustive
def test_a_page_that_disagrees_says_so(browser: Browser, pages: dict[str, Path], tmp_path: Path):
    wrong = tmp_path / "wrong.html"
    wrong.write_text(re.sub(r'"weight":\d+', '"weight":1', pages["story"].read_text(encoding="utf-8"), count=1))
    browser.open(wrong.as_uri(), CHECKED)
    assert "disagree at step 1:" in browser.run("document.getElementById('check').textContent")


@pytest.mark.exhaustive
def test_texts_are_texts(browser: Browser, pages: dict[str, Path], nasty: DecodingTrace):
    browser.open(pages["nasty"].as_uri(), CHECKED)
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.querySelectorAll('main script, main b, footer i').length") == 0
    strip = browser.run("document.getElementById('strip').textContent")
    assert "<0x3C>script" in strip and "⏎" in strip and strip.startswith("<s>▁He")
    assert "storyteller <i>&</i>" in browser.run("document.getElementById('settings').textContent")
    assert browser.problems == []


@pytest.mark.exhaustive
def test_markup_as_a_piece_stays_text(browser: Browser, story: DecodingTrace, tmp_path: Path):
    """Where the vocabulary itself has markup for tokens."""

    class Marked(Tokenizer):
        def pieces(self, ids: Any) -> list[str]:
            return [f"<script>alert({i})</script><img src=x onerror=alert(1)>\u202e\n" for i in ids]

    page = tmp_path / "marked.html"
    page.write_text(trace_page.render(replace(story, tokenizer=Marked.from_pretrained()), SETTINGS), encoding="utf-8")
    browser.open(page.as_uri(), CHECKED)
    assert browser.run("document.scripts.length") == 2 and browser.run("document.images.length") == 0
    assert "<script>alert(1)</script>" in browser.run("document.getElementById('strip').textContent")
    assert browser.problems == []


@pytest.mark.exhaustive
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (360, False), (360, True)])
def test_looks(browser: Browser, pages: dict[str, Path], width: int, dark: bool, tmp_path: Path):
    """A picture that is not blank, of the scheme asked for, and nothing that sticks out sideways."""
    browser.open(pages["story"].as_uri(), CHECKED, width, dark)
    browser.press("ArrowRight")
    moved(browser, [{"temperature-slider": 700}])
    folder = Path(os.environ.get("ALEA_SCREENSHOTS", tmp_path))
    image = browser.screenshot(folder / f"trace-{width}-{'dark' if dark else 'light'}.png").convert("L")
    pixels = np.asarray(image)
    assert browser.run("document.documentElement.scrollWidth") <= width and pixels.std() > 5
    assert (np.median(pixels) < 100) == dark
    assert browser.problems == []


BOTTOMS = """[...document.querySelectorAll("#candidates tbody tr:first-child td")].map((cell) => {
  const range = document.createRange();
  range.selectNodeContents([...cell.childNodes].at(-1));
  return range.getBoundingClientRect().bottom;
})"""


@pytest.mark.exhaustive
def test_what_became_of_a_candidate_stands_level_with_its_numbers(browser: Browser, pages: dict[str, Path]):
    """Rank, logit, a probability a stage below its bar, outcome: their text ends at one height."""
    browser.open(pages["story"].as_uri(), CHECKED)
    bottoms = browser.run(BOTTOMS)
    assert len(bottoms) == 2 + 5 + 1 and max(bottoms) - min(bottoms) < 1


PLACES = """(() => {
  const box = document.getElementById("%s").parentElement;
  const edges = (element) => [element.getBoundingClientRect().left, element.getBoundingClientRect().right];
  const places = () => [...box.querySelectorAll("tbody tr:first-child > *")].map(edges);
  const before = places();
  box.scrollLeft = 9999;
  return [edges(box), before, places()];
})()"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("table", ["stages", "candidates"])
def test_on_a_phone_a_wide_table_scrolls_in_its_box(browser: Browser, pages: dict[str, Path], table: str):
    """To its last column, and what the row is about stays in sight."""
    browser.open(pages["story"].as_uri(), CHECKED, 390)
    (left, right), before, after = browser.run(PLACES % table)
    assert before[-1][1] > right + 1 and after[-1][1] <= right + 1
    assert before[0][0] == after[0][0] == left


@pytest.mark.exhaustive
def test_every_input_has_a_name(browser: Browser, pages: dict[str, Path]):
    browser.open(pages["story"].as_uri(), CHECKED)
    name = "(one) => one.ariaLabel || one.textContent || one.labels[0].textContent"
    named = f"[...document.querySelectorAll('input, button')].map({name})"
    assert all(browser.run(named))
