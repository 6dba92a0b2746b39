"""`alea bench report`: renews the tables and pictures of the pages, from the committed records alone."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from bench import records, runner
from bench.cases import CHAINS, FILTERS
from bench.exactness import conformance
from bench.loading import load, quantization, schemes
from bench.loading.checkpoints import SHAPES
from bench.records import Record, newest, three_digits
from bench.speed import decode, hf, isa
from model import files
from samplers.extras import how_to_install
from samplers.reference import filters

PAGES = [Path(__file__).parents[1] / name for name in ("README.md", "docs/benchmarks.md", "docs/decoding.md")]
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


def decode_table() -> str:
    found = newest(
        "decode",
        key=lambda record: record["batch"],
        wanted=lambda record: record["model"] == "storyteller" and "transformers" in record["tokens_a_second"],
    )
    caption = (
        f"Tokens a second, p20 to p80 in parentheses. Storyteller in float32, {found[-1]['new_tokens']} tokens a "
        f"sequence, temperature and top-p; {records.in_words(found[-1], 'decode')}"
    )
    return markdown(decode.table(found), caption)


def sample_table() -> str:
    """One row a call; all filters on peaked rows, and on the others top-p, which flat and tied ones make hard."""
    found = single_rows(lambda record: record["kind"] == "peaked" or record["filters"] == "p.9")
    caption = f"Microseconds a row, one row a call; {records.in_words(found[-1], 'sample')}"
    return times_table(found, SAMPLERS, caption)


def speed_table() -> str:
    """The same in short, for the README: peaked rows, without filters and with the two most used."""
    found = single_rows(lambda record: record["kind"] == "peaked" and record["filters"] in ("none", "k50+p.9"))
    caption = (
        "Microseconds to draw one token, without filters and with top-k 50 and top-p 0.9, from logits as a trained "
        f"model gives them; {records.in_words(found[-1], 'sample')}"
    )
    return times_table(found, [name for name in SAMPLERS if name != "kernel"], caption)


def single_rows(wanted: Callable[[Record], bool]) -> list[Record]:
    return newest(
        "sample",
        key=lambda record: (
            KINDS.index(record["kind"]),
            record["vocabulary"],
            list(FILTERS).index(record["filters"]),
        ),
        wanted=lambda record: (
            (record["batch"], record["dtype"]) == (1, "float32") and record["kind"] in KINDS and wanted(record)
        ),
    )


def times_table(found: Iterable[Record], names: Sequence[str], caption: str) -> str:
    lines = []
    for record in found:
        times = record["microseconds"]
        cells = [three_digits(times[name]["p50"]) if name in times else "–" for name in names]
        lines.append([record["kind"], f"{record['vocabulary']:,}", record["filters"], *cells])
    return markdown((["rows", "V", "filters", *names], lines), caption, left=1)


def filters_table() -> str:
    """From the table of filters itself."""
    lines = [[f"`{f.name}`", f.summary, f.accepts.text, f"{f.off:g}"] for f in filters.FILTERS]
    caption = "`min_tokens_to_keep` is the least number of tokens that each filter keeps."
    return markdown((["parameter", "the filter", "accepts", "off"], lines), caption, left=4)


def conformance_table() -> str:
    found = newest("conformance", key=lambda record: record["sampler"])
    return markdown(conformance.table(found), f"{conformance.CAPTION}; {records.in_words(found[-1], 'conformance')}", 1)


def hf_table() -> str:
    """Two chains: sampling in a step of transformers' generate, its own and ours."""
    found = newest(
        "hf",
        key=lambda record: (record["batch"], record["vocabulary"], list(CHAINS).index(record["chain"])),
        wanted=lambda record: record["chain"] in SHOWN_CHAINS,
    )
    return markdown(hf.table(found), f"{hf.CAPTION}; {records.in_words(found[-1], 'hf')}")


def load_table() -> str:
    """Loading by shape and dtype, ours and transformers'."""
    found = newest("load", key=shape_and_dtype, wanted=lambda record: not record["shape"].startswith("7B"))
    return markdown(load.table(found), f"{load.CAPTION}; {records.in_words(found[-1], 'load')}", left=1)


def memory_table() -> str:
    """Llama-2-7B's weights in memory."""
    found = newest("load", key=shape_and_dtype, wanted=lambda record: record["shape"].startswith("7B"))
    depths = [record["shape"].split("-")[1] for record in found if record["shape"] != "7B"]
    latest = max(found, key=lambda record: record["time"])
    caption = (
        f"Llama-2-7B's shape with random weights, stored in bfloat16, each loaded once by alea. Resident: memory of "
        f"the process above that before; peak: its most while loading; after a token: with the buffers of the first "
        f"forward pass (for 4 bits, a CPU with AVX512-BF16 packs the weights again). Difference: of resident from the "
        f"tutorial's, which is a GPU's. 32 bits do not fit this machine: the line through {' and '.join(depths)} "
        f"layers, drawn on to {SHAPES['7B'].num_hidden_layers}. In 8 and 4 bits embedding, norms and lm_head stay in "
        f"bfloat16. Measured {records.in_words(latest, 'load', LOADED_WITH)}"
    )
    return markdown(schemes.memory_table(found), caption, left=1)


def shape_and_dtype(record: Record) -> tuple[int, int]:
    return list(SHAPES).index(record["shape"]), list(schemes.SCHEMES).index(record["dtype"])


def quantization_table() -> str:
    """The effect of fewer bits on the built-in model."""
    found = newest("quantization", key=lambda record: list(schemes.SCHEMES).index(record["dtype"]))
    caption = f"{quantization.CAPTION}; {records.in_words(found[0], 'quantization', LOADED_WITH)}"
    return markdown(quantization.table(found), caption, left=1)


def isa_table() -> str:
    """The C++ backend by instruction set."""
    found = newest("isa", key=lambda record: (isa.KINDS.index(record["kind"]), isa.FILTERS.index(record["filters"])))
    caption = (
        f"Microseconds a row of {isa.VOCABULARY:,} logits at T = 0.8, in parentheses as a multiple of the first; "
        f"{records.in_words(found[0], 'isa', ())}"
    )
    return markdown(isa.table(found), caption, left=2)


TABLES = {
    "speed": speed_table,
    "sample": sample_table,
    "filters": filters_table,
    "conformance": conformance_table,
    "decode": decode_table,
    "hf": hf_table,
    "load": load_table,
    "memory": memory_table,
    "quantization": quantization_table,
    "isa": isa_table,
}
