"""Tables and pictures of the pages from the committed records, and from nothing else; `alea bench report`."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.loading import load, quantization, tutorial
from bench.loading.checkpoints import SHAPES
from bench.loading.schemes import SCHEMES
from bench.measure import RESULTS
from bench.speed import hf, isa
from model import files

HELP = "renew the tables and pictures of README.md and docs/ from the records in bench/results/"
PAGES = [Path(__file__).parents[1] / name for name in ("README.md", "docs/benchmarks.md", "docs/decoding.md")]
START, END = r"<!-- table: (.+) -->\n", "<!-- end -->"

Record = dict[str, Any]


class NoRecords(ValueError):
    """A file of records that holds none of the wanted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    pages = "files whose tables are renewed; default README.md and those in docs/"
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES, metavar="FILE", help=pages)
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="of the pictures; default bench/results/plots")


def run(arguments: argparse.Namespace) -> int:
    texts = with_tables({page: page.read_text(encoding="utf-8") for page in arguments.pages})
    for page, text in texts.items():
        files.replace(page, text)
        print(f"renewed {page}")
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


def with_tables(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages with each `<!-- table: NAME -->` ... `<!-- end -->` filled anew.

    Raises: ValueError where a table stands in no page or in several places, is not known, or does not end.
    """
    names = [name for text in pages.values() for name in re.findall(START, text)]
    for name in names:
        if name not in TABLES:
            raise ValueError(f"table must be one of {', '.join(TABLES)}, got {name!r}")
    for name in TABLES:
        if names.count(name) != 1:
            raise ValueError(f"the pages must hold '<!-- table: {name} -->' once, got it {names.count(name)} times")
    return {page: filled(text) for page, text in pages.items()}


def filled(text: str) -> str:
    """The page whose tables are all known."""
    before, *parts = re.split(f"({START})", text)
    for start, name, rest in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f"'<!-- table: {name} -->' must be followed by '{END}' before the next table")
        before += start + TABLES[name]() + end + after
    return before


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
    records = single_rows(lambda record: record["kind"] == "peaked" or record["filters"] == "p.9")
    table = times_table(records, CONTESTANTS)
    return f"{table}\nMicroseconds a row, one row a call; {circumstances(records[-1], 'sample')}\n"


def speed_table() -> str:
    """The same in short, for the README: peaked rows, without filters and with the two most used."""
    records = single_rows(lambda record: record["kind"] == "peaked" and record["filters"] in ("none", "k50+p.9"))
    table = times_table(records, [name for name in CONTESTANTS if name != "kernel"])
    return (
        f"{table}\nMicroseconds to draw one token, without filters and with top-k 50 and top-p 0.9, from logits as a "
        f"trained model gives them; {circumstances(records[-1], 'sample')}\n"
    )


def single_rows(wanted: Callable[[Record], bool]) -> list[Record]:
    return newest(
        "sample",
        key=lambda record: (KINDS.index(record["kind"]), record["vocabulary"], FILTERS.index(record["filters"])),
        wanted=lambda record: (
            (record["batch"], record["dtype"]) == (1, "float32") and record["kind"] in KINDS and wanted(record)
        ),
    )


def times_table(records: Iterable[Record], names: Iterable[str]) -> str:
    rows = []
    for record in records:
        times = record["microseconds"]
        cells = [f"{times[name]['p50']:,.3g}" if name in times else "–" for name in names]
        rows.append([record["kind"], f"{record['vocabulary']:,}", record["filters"], *map(plain, cells)])
    return markdown(["rows", "V", "filters", *names], rows, left=1)


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
    """Loading by shape and dtype, ours beside transformers'."""
    records = newest("load", key=load_case, wanted=lambda record: not record["shape"].startswith("7B"))
    headings, rows = load.rows(records)
    return (
        f"{markdown(headings, rows, left=1)}\nalea / transformers. Load: until from_pretrained returns; ready: until "
        f"every page of the weights has been read as well; peak: of resident memory above that before; the files were "
        f"just written; {circumstances(records[-1], 'load')}\n"
    )


def memory_table() -> str:
    """What the weights of Llama-2-7B take in memory."""
    records = newest("load", key=load_case, wanted=lambda record: record["shape"].startswith("7B"))
    headings, rows = tutorial.rows(records)
    depths = [record["shape"].split("-")[1] for record in records if record["shape"] != "7B"]
    latest = max(records, key=lambda record: record["time"])
    return (
        f"{markdown(headings, rows, left=1)}\nLlama-2-7B's shape with random weights, stored in bfloat16, each loaded "
        f"once by alea. Resident: memory of the process above that before; peak: its most while loading; after a "
        f"token: with what the first forward pass leaves (a CPU with AVX512-BF16 packs 4 bits anew for it). "
        f"Difference: of resident from the tutorial's, which is a GPU's. 32 bits do not fit this machine: the line "
        f"through {' and '.join(depths)} layers, drawn on to {SHAPES['7B'].num_hidden_layers}. In 8 and 4 bits "
        f"embedding, norms and lm_head stay in bfloat16. Measured {circumstances(latest, 'load', OURS)}\n"
    )


def load_case(record: Record) -> tuple[int, int]:
    return list(SHAPES).index(record["shape"]), list(SCHEMES).index(record["dtype"])


def quantization_table() -> str:
    """What fewer bits do to the built-in model."""
    records = newest("quantization", key=lambda record: list(SCHEMES).index(record["dtype"]))
    headings, rows = quantization.rows(records)
    where = circumstances(records[0], "quantization", OURS)
    return f"{markdown(headings, rows, left=1)}\n{quantization.CAPTION}; {where}\n"


def isa_table() -> str:
    """The C++ backend by instruction set."""
    records = newest("isa", key=lambda record: (isa.KINDS.index(record["kind"]), isa.FILTERS.index(record["filters"])))
    headings, rows = isa.rows(records)
    return (
        f"{markdown(headings, rows, left=2)}\nMicroseconds a row of {isa.VOCABULARY:,} logits at T = 0.8, in "
        f"parentheses as a multiple of the first; {circumstances(records[0], 'isa', ())}\n"
    )


PEERS, OURS = ("torch", "transformers"), ("torch", "bitsandbytes")  # packages that a figure hangs on


def circumstances(record: Record, name: str, packages: Iterable[str] = PEERS) -> str:
    """On what and when it was measured, and where the record is."""
    machine, versions = record["machine"], record["versions"]
    rounds = f"medians of {record['rounds']} interleaved rounds " if record.get("rounds", 1) > 1 else ""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    known = "".join(f"{package} {versions[package]}, " for package in packages if versions.get(package))
    return (
        f"{rounds}on {gpu}{machine['cpu']} ({machine['isa']}), {threads}, {known}{record['time'][:10]} "
        f"(`bench/results/{name}.jsonl`)."
    )


TABLES = {
    "speed": speed_table,
    "sample": sample_table,
    "conformance": conformance_table,
    "decode": decode_table,
    "hf": hf_table,
    "load": load_table,
    "memory": memory_table,
    "quantization": quantization_table,
    "isa": isa_table,
}
