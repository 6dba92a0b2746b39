"""What a page shows of a step, and what it must show. Oracles: `samplers.sample` and `samplers.trace`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from model.study.trace_page import SLIDERS
from samplers import SamplingParams, Trace, sample, trace
from tests.model.browser import Browser

MOVE = """(() => {
  const moves = %s;
  const results = [];
  const value = (id) => document.getElementById(id).value;
  const move = (id, to) => {
    const input = document.getElementById(id);
    if (input.value === String(to)) return; // no move, no event
    input.value = to;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  for (const one of moves) {
    for (const [id, to] of Object.entries(one)) move(id, to);
    const names = %s;
    const settings = Object.fromEntries(names.map((name) => [name, value(name)]));
    const shown = ["token", "weight", "total", "survivors", "mass", "entropy"];
    results.push({ settings, ...Object.fromEntries(shown.map((name) => [name, value(`now-${name}`)])) });
  }
  return results;
})()"""


def moved(browser: Browser, moves: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the page shows after each move of its inputs, as real input events."""
    return browser.run(MOVE % (json.dumps(moves), json.dumps(SLIDERS)))


def assert_shown(result: dict[str, Any], t: Trace) -> SamplingParams:
    """The page's numbers are the engine's under the settings that the page's own inputs show."""
    values = {name: float(result["settings"][name]) for name in SLIDERS}
    whole = {name: int(values[name]) for name in ("top_k", "min_tokens_to_keep")}
    params = SamplingParams(**(values | whole))
    out = sample(t.changed, params, seed=t.seed, position=t.position, stream=t.stream, details=True)
    engine_says = [int(column[0]) for column in (out.tokens, out.weight, out.total, out.kept)]
    assert [int(result[name]) for name in ("token", "weight", "total", "survivors")] == engine_says, params
    assert float(result["entropy"]) == pytest.approx(float(out.entropy[0]), abs=1e-6)
    weighed = int(trace(t.changed, SamplingParams(temperature=params.temperature), seed=0).total)
    assert float(result["mass"]) == pytest.approx(int(out.total[0]) / weighed, rel=1e-12)
    return params
