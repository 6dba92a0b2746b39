"""`alea bench isa`. Oracle: the reference, which a wrong draw is held to; a table worked out by hand."""

from __future__ import annotations

import pytest

from bench.cases import Case
from bench.speed import isa
from tests.bench.command import run
from tests.conftest import require


def test_each_instruction_set_is_timed_and_put_back(monkeypatch):
    require("native")
    from samplers import _native

    best = _native.isa_in_use()
    record = isa.measured(Case("peaked", 3000, filters="p.9"), rounds=2)
    assert list(record["microseconds"]) == _native.available_isas()
    assert _native.isa_in_use() == best


def test_a_wrong_draw_is_not_timed(monkeypatch):
    require("native")
    monkeypatch.setattr(isa, "draw_with", lambda isa, draw, step: draw(step) * 0)
    with pytest.raises(RuntimeError, match="nothing was measured"):
        isa.measured(Case("peaked", 3000, filters="none"), rounds=2)


def test_rows():
    times = {name: {"p50": micros} for name, micros in (("avx512", 50.0), ("generic", 420.0))}
    records = [{"kind": "flat", "filters": "none", "microseconds": times}]
    headings, rows = isa.table(records)
    assert headings == ["rows", "filters", "avx512", "generic"]
    assert rows == [["flat", "none", "50 (1.0 ×)", "420 (8.4 ×)"]]


def test_the_command(monkeypatch, capsys):
    monkeypatch.setattr(isa, "VOCABULARY", 2000)
    assert run(isa, "--quick") == 0
    assert "k50+p.9" in capsys.readouterr().out


def test_stopped_before_the_first_case(monkeypatch, capsys):
    """A Ctrl-C leaves no table, and no traceback."""
    require("native")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(isa, "measured", stop)
    assert run(isa, "--quick") == 0
    assert capsys.readouterr().out == ""
