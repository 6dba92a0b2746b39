"""Tables of README.md from the committed records, and from nothing else; `alea bench report`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.measure import RESULTS

HELP = "renew the tables of README.md from the records in bench/results/"
README = Path(__file__).parents[1] / "README.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readme", type=Path, default=README, help="the file whose tables are renewed")


def run(arguments: argparse.Namespace) -> int:
    text = arguments.readme.read_text(encoding="utf-8")
    arguments.readme.write_text(with_tables(text), encoding="utf-8")
    print(f"renewed {arguments.readme}")
    return 0


def with_tables(text: str) -> str:
    """The text with each `<!-- table: NAME -->` ... `<!-- end -->` filled anew."""
    for name, table in (("decode", decode_table),):
        before, mark, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"README must hold '<!-- table: {name} -->' and '<!-- end -->', one line each")
        text = before + mark + table(latest(name)) + end + after
    return text


def latest(name: str) -> list[dict[str, Any]]:
    """The storyteller's newest record of each batch size in `results/name.jsonl`, transformers beside it."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    wanted = [r for r in records if r["model"] == "storyteller" and "transformers" in r["tokens_a_second"]]
    if not wanted:
        raise ValueError(f"results/{name}.jsonl must hold records of the storyteller, got {len(records)} of others")
    newest = {record["batch"]: record for record in wanted}
    return [newest[batch] for batch in sorted(newest)]


def decode_table(records: list[dict[str, Any]]) -> str:
    rows = ["| batch | alea, tokens/s | transformers, tokens/s | ratio |", "|---:|---:|---:|---:|"]
    for record in records:
        ours, theirs = (record["tokens_a_second"][name]["p50"] for name in ("alea", "transformers"))
        rows.append(f"| {record['batch']} | {ours:,.0f} | {theirs:,.0f} | {ours / theirs:.2f} × |")
    return "\n".join(rows) + f"\n\n{circumstances(records[-1])}\n"


def circumstances(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    return (
        f"Storyteller in float32, {record['new_tokens']} tokens a sequence, temperature and top-p; medians of "
        f"{record['rounds']} interleaved rounds on {machine['cpu']}, {machine['threads']} threads, "
        f"torch {versions['torch']}, transformers {versions['transformers']}, {record['time'][:10]} "
        "(`bench/results/decode.jsonl`)."
    )
