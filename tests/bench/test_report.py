"""`alea bench report`: tables in pages. Oracle: pages written by hand; test_docs.py has our own."""

from pathlib import Path

import pytest

from bench import records, report
from tests.bench.command import run

ONE, OTHER = Path("one.md"), Path("other.md")


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    monkeypatch.setattr(report, "TABLES", {"a": lambda: "A\n", "b": lambda: "B\n"})


def page(*names: str) -> str:
    return "top\n" + "".join(f"<!-- table: {name} -->\nold\n<!-- end -->\nbelow {name}\n" for name in names)


def test_tables_of_several_pages():
    found = report.with_tables({ONE: page("b"), OTHER: page("a")})
    assert found == {
        ONE: "top\n<!-- table: b -->\nB\n<!-- end -->\nbelow b\n",
        OTHER: "top\n<!-- table: a -->\nA\n<!-- end -->\nbelow a\n",
    }
    assert report.with_tables(found) == found
    both = report.with_tables({ONE: page("b", "a"), OTHER: page()})
    assert both[ONE] == found[ONE] + found[OTHER].removeprefix("top\n") and both[OTHER] == page()


@pytest.mark.parametrize(
    ("one", "other", "refusal"),
    [
        (page("a"), page(), "the pages must hold '<!-- table: b -->' once, got it 0 times"),
        (page("a", "b"), page("b"), "the pages must hold '<!-- table: b -->' once, got it 2 times"),
        (page("a", "b"), page("c"), "table must be one of a, b, got 'c'"),
        (page("a", "b d"), page("b"), "table must be one of a, b, got 'b d'"),
        (page("a").replace("<!-- end -->", ""), page("b"), "'<!-- table: a -->' must be followed by '<!-- end -->'"),
        (page("a", "b").replace("<!-- end -->", "", 1), page(), "'<!-- table: a -->' must be followed by"),
    ],
)
def test_tables_without_a_place_of_their_own_are_refused(one, other, refusal):
    with pytest.raises(ValueError, match=refusal):
        report.with_tables({ONE: one, OTHER: other})


def test_no_page_is_written_where_one_is_refused(tmp_path):
    one, other = tmp_path / "one.md", tmp_path / "other.md"
    one.write_text(page("a", "b"))
    other.write_text(page("c"))
    with pytest.raises(ValueError, match="got 'c'"):
        run(report, "--pages", str(one), str(other))
    assert one.read_text() == page("a", "b")


def test_older_records_know_fewer_packages():
    record = {
        "machine": {"cpu": "C", "isa": "I", "threads": 1},
        "versions": {"torch": "2"},
        "time": "2026-11-21T09:20:17+00:00",
    }
    words = records.in_words(record, "load", report.LOADED_WITH)
    assert words == "on C (I), 1 thread, torch 2, 2026-11-21 (`bench/results/load.jsonl`)."
    record["versions"]["bitsandbytes"] = "0.50"
    assert "torch 2, bitsandbytes 0.50, 2026" in records.in_words(record, "load", report.LOADED_WITH)


def test_rounds_of_all_records_of_a_table():
    few, many = (
        {"machine": {"cpu": "C", "isa": "I", "threads": 1}, "versions": {}, "time": "2026-11-21", "rounds": rounds}
        for rounds in (3, 7)
    )
    assert records.in_words(many, "decode", (), [few, many]).startswith("medians of 3 to 7 interleaved rounds on C")
    assert records.in_words(many, "decode", (), [many]).startswith("medians of 7 interleaved rounds on C")
