"""Tables and pictures of README.md from the committed records, and from nothing else; `alea bench report`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench import hf, load, quantization
from bench.measure import RESULTS

HELP = "renew the tables and pictures of README.md from the records in bench/results/"
README = Path(__file__).parents[1] / "README.md"

Record = dict[str, Any]


class NoRecords(ValueError):
    """A file of records that holds none of the wanted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--readme", type=Path, default=README, help="the file whose tables are renewed")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="of the pictures; default bench/results/plots")


def run(arguments: argparse.Namespace) -> int:
    text = arguments.readme.read_text(encoding="utf-8")
    arguments.readme.write_text(with_tables(text), encoding="utf-8")
    print(f"renewed {arguments.readme}")
    renew_plots(arguments.plots)
    return 0


def renew_plots(folder: Path | None) -> None:
    """Where nobody asked for them, a line says why there are none.

    Raises: plots.NoMatplotlib where somebody did.
    """
    from bench import plots

    try:
        plots.write(folder or plots.FOLDER)
    except plots.NoMatplotlib as reason:
        if folder is not None:
            raise
        print(f"no pictures: {reason}")


def with_tables(text: str) -> str:
    """The text with each `<!-- table: NAME -->` ... `<!-- end -->` filled anew."""
    for name, table in TABLES.items():
        before, mark, rest = text.partition(f"<!-- table: {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"README must hold '<!-- table: {name} -->' and '<!-- end -->', one line each")
        text = before + mark + table() + end + after
    return text


def newest(
    name: str, key: Callable[[Record], Any], wanted: Callable[[Record], bool] = lambda record: True
) -> list[Record]:
    """The newest of the wanted records in `results/name.jsonl` for each key, by key."""
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if wanted(record)]
    if not records:
        raise NoRecords(f"results/{name}.jsonl must hold records to make a table of, got {len(lines)} others")
    latest = {key(record): record for record in records}
    return [latest[place] for place in sorted(latest)]


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]], left: int = 0) -> str:
    """A table whose first `left` columns are set to the left."""
    head = list(head)
    lines = [head, ["---" if column < left else "---:" for column in range(len(head))], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def decode_table() -> str:
    records = newest(
        "decode",
        key=lambda record: record["batch"],
        wanted=lambda record: record["model"] == "storyteller" and "transformers" in record["tokens_a_second"],
    )
    rows = []
    for record in records:
        ours, theirs = (record["tokens_a_second"][name]["p50"] for name in ("alea", "transformers"))
        rows.append([f"{record['batch']}", f"{ours:,.0f}", f"{theirs:,.0f}", f"{ours / theirs:.2f} ×"])
    table = markdown(["batch", "alea, tokens/s", "transformers, tokens/s", "ratio"], rows)
    return (
        f"{table}\nStoryteller in float32, {records[-1]['new_tokens']} tokens a sequence, temperature and top-p; "
        f"{circumstances(records[-1], 'decode')}\n"
    )


CONTESTANTS = ("max", "kernel", "alea", "torch", "torch.compile", "llama.cpp", "transformers")


KINDS, FILTERS = ("peaked", "real", "flat", "tied"), ("none", "k50+p.9", "p.9", "all")


def sample_table() -> str:
    """One row a call; all filters on peaked rows, and top-p, which they are hard for, on flat and tied ones."""
    records = newest(
        "sample",
        key=lambda record: (KINDS.index(record["kind"]), record["vocabulary"], FILTERS.index(record["filters"])),
        wanted=lambda record: (
            (record["batch"], record["dtype"]) == (1, "float32")
            and (record["kind"] == "peaked" or (record["kind"] in KINDS and record["filters"] == "p.9"))
        ),
    )
    rows = []
    for record in records:
        times = record["microseconds"]
        cells = [f"{times[name]['p50']:,.3g}" if name in times else "–" for name in CONTESTANTS]
        rows.append([record["kind"], f"{record['vocabulary']:,}", record["filters"], *map(plain, cells)])
    table = markdown(["rows", "V", "filters", *CONTESTANTS], rows, left=1)
    return f"{table}\nMicroseconds a row, one row a call; {circumstances(records[-1], 'sample')}\n"


def plain(figure: str) -> str:
    """Without an exponent: 1.42e+03 as 1,420."""
    return f"{float(figure):,.0f}" if "e" in figure else figure


def conformance_table() -> str:
    records = newest("conformance", key=lambda record: record["sampler"])
    checks = [finding["check"] for finding in records[0]["findings"]]
    words = {True: "pass", False: "**fail**", None: "–"}
    rows = [
        [record["sampler"], f"{record['draws']:,}", *(words[finding["passed"]] for finding in record["findings"])]
        for record in records
    ]
    table = markdown(["sampler", "draws a row", *(check.replace("_", " ") for check in checks)], rows, left=1)
    return f"{table}\nWith so many draws of each of some dozen rows, {circumstances(records[-1], 'conformance')}\n"


SHOWN = ("none", hf.JUDGED)  # chains: where we gain least, and what the goal is about


def hf_table() -> str:
    """One row a case: sampling in a step of transformers' generate, its own beside ours."""
    records = newest(
        "hf", key=lambda record: (record["batch"], record["vocabulary"], list(hf.CHAINS).index(record["chain"]))
    )
    rows = []
    for record in (record for record in records if record["chain"] in SHOWN):
        hot, inside = (
            [plain(f"{record[figure][name]['p50']:,.3g}") for name in ("stock", "attached")]
            for figure in ("microseconds", "microseconds_inside")
        )
        case = [f"{record['batch']}", f"{record['vocabulary']:,}", record["chain"]]
        rows.append([*case, *hot, f"{hf.ratio(record):.0f} ×", " / ".join(inside), hf.operators(record)])
    headings = ["batch", "V", "chain", "stock, µs", "alea, µs", "ratio", "inside generate, µs", "operators"]
    return (
        f"{markdown(headings, rows)}\nFrom a step's logits to its next tokens, over and over with warm caches, and "
        f"inside generate, where the model has just used them (stock / alea). Operators in all, in parentheses "
        f"those that compute; {circumstances(records[-1], 'hf')}\n"
    )


def load_table() -> str:
    """Loading by shape and dtype, ours beside transformers'; then Llama-2-7B's shape beside the tutorial's figures."""
    records = newest("load", key=load_case, wanted=lambda record: not record["shape"].startswith("7B"))
    headings, rows = load.rows(records)
    return (
        f"{markdown(headings, rows, left=1)}\nalea / transformers. Load: until from_pretrained returns; ready: until "
        f"every page of the weights has been read as well; peak: of resident memory above that before; the files were "
        f"just written; {circumstances(records[-1], 'load')}\n\n{tutorial_table()}"
    )


def tutorial_table() -> str:
    """What the weights of Llama-2-7B take in memory."""
    records = newest("load", key=load_case, wanted=lambda record: record["shape"].startswith("7B"))
    headings, rows = load.tutorial_rows(records)
    depths = " and ".join(
        f"{record['resident_mib']['alea']['p50']:,.0f} MiB of {record['shape'].split('-')[1]}"
        for record in records
        if record["shape"] != "7B"
    )
    layers = load.SHAPES["7B"].num_hidden_layers
    return (
        f"{markdown(headings, rows, left=1)}\nLlama-2-7B's shape with random weights, stored in bfloat16, loaded by "
        f"alea. Resident: memory of the process after loading, above that before. In float32 it is more than this "
        f"machine has: the line through {depths} layers, drawn on to {layers}. In 8 and 4 bits embedding, norms and "
        f"lm_head are in bfloat16; the first pass packs 4 bits anew on a CPU with AVX512-BF16. Loaded once each, "
        f"beside other work; {circumstances(records[0], 'load')}\n"
    )


def load_case(record: Record) -> tuple[int, int]:
    return list(load.SHAPES).index(record["shape"]), list(load.SCHEMES).index(record["dtype"])


def quantization_table() -> str:
    """What fewer bits do to the built-in model."""
    schemes = list(load.SCHEMES)
    records = newest("quantization", key=lambda record: schemes.index(record["dtype"]))
    headings, rows = quantization.rows(records)
    caption = quantization.CAPTION.format(texts=records[0]["texts"], seed=records[0]["seed"])
    return f"{markdown(headings, rows, left=1)}\n{caption}; {circumstances(records[0], 'quantization')}\n"


def circumstances(record: Record, name: str) -> str:
    machine, versions = record["machine"], record["versions"]
    rounds = f"medians of {record['rounds']} interleaved rounds " if record.get("rounds", 1) > 1 else ""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    return (
        f"{rounds}on {gpu}{machine['cpu']} ({machine['isa']}), {threads}, torch {versions['torch']}, "
        f"transformers {versions['transformers']}, {record['time'][:10]} (`bench/results/{name}.jsonl`)."
    )


TABLES = {
    "sample": sample_table,
    "conformance": conformance_table,
    "decode": decode_table,
    "hf": hf_table,
    "load": load_table,
}
