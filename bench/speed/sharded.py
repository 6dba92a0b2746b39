"""`alea bench sharded`: a draw over a vocabulary divided over processes, beside gathering the logits."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from bench import runner
from bench.cases import Case
from bench.processes import in_processes
from bench.records import Record, quantiles, three_digits
from bench.speed.timing import in_turn
from samplers import SampleOutput, sample
from samplers.sharded.collectives import Collectives
from samplers.sharded.draw import drawn

SEED = 7
ROWS = (("peaked", "none"), ("peaked", "k50+p.9"), ("peaked", "p.9"), ("flat", "p.9"))
CAPTION = (
    "Messages and kilobytes that each process gives to a draw of a batch; gathered: the kilobytes of its part of the "
    "logits, which an all-gather gives. ms: of the draw, sharded / gathered and drawn by every process (gloo, two "
    "cores, so more processes than two wait for each other)"
)
PAPER_CAPTION = (
    "Microseconds of one draw of 64 rows by the counts above and round figures for a link, assumed and not measured: "
    "messages · latency + what comes in / bandwidth; logits in bfloat16; sharded / gathered. The draw itself is not "
    "counted"
)


class Link(NamedTuple):
    """latency: µs a message. bandwidth: GB/s into a process."""

    latency: float
    bandwidth: float


LINKS = {
    "NVLink": Link(10, 300),
    "InfiniBand, 400 Gb/s": Link(20, 45),
    "Ethernet, 25 Gb/s": Link(60, 2.8),
}
PAPER_RANKS, PAPER_BATCH = (8, 16, 64), 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4, 8], metavar="R", help="default 2 4 8")
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[128256], metavar="V", help="default 128256")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 64], metavar="B", help="default 1 64")
    runner.add_options(parser, "sharded", "three rounds with two processes and the first batch size", rounds=11)


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    if arguments.quick:
        arguments.rounds, arguments.processes, arguments.batch = 3, [2], arguments.batch[:1]
    for count in arguments.processes:
        if count < 1:
            raise ValueError(f"--processes must be >= 1, got {count}")
    torch.set_num_threads(1)
    sizes = product(arguments.processes, arguments.vocabulary, arguments.batch, ROWS)
    cases = [(processes, Case(kind, v, batch, name)) for processes, v, batch, (kind, name) in sizes]
    records = runner.collect("sharded", cases, partial(measured, rounds=arguments.rounds), arguments.save)
    if records:
        runner.print_table("sharded / gathered", table(records), f"{CAPTION}.", left=0)
    return 0


def measured(case: tuple[int, Case], rounds: int) -> Record:
    """case: how many processes, and the rows."""
    size, rows = case
    expected = columns(sample(rows.logits, rows.params, seed=SEED))
    found = in_processes(size, part_of, rows, rounds)
    for process in found:
        if process["columns"] != expected:
            raise RuntimeError(f"{rows} over {size} processes: not the draws of whole rows")
    return {
        "processes": size,
        "vocabulary": rows.vocabulary,
        "batch": rows.batch,
        "kind": rows.kind,
        "filters": rows.filters,
        "rounds": rounds,
        **{name: found[0][name] for name in ("messages", "bytes_gathered", "bytes_summed")},
        "bytes_of_logits": rows.logits.nbytes // size,
        "milliseconds": {name: quantiles([1e3 * s for s in times]) for name, times in found[0]["seconds"].items()},
    }


def part_of(rank: int, rows: Case, rounds: int) -> dict[str, Any]:
    """One process: its draws, what it gave to them, and seconds by name."""
    size = dist.get_world_size()
    begin, end = (rows.vocabulary * place // size for place in (rank, rank + 1))
    part = rows.logits[:, begin:end].contiguous()
    together = Collectives()
    keys = dict(seed=SEED, position=0, stream=None)
    functions: dict[str, Callable[[], SampleOutput]] = {
        "sharded": lambda: drawn(Collectives(), part, rows.params, begin, keys),
        "gathered": lambda: gathered(part, rows),
    }
    found = columns(drawn(together, part, rows.params, begin, keys))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name in in_turn(list(functions), number):
            dist.barrier()
            began = time.perf_counter()
            functions[name]()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    given = dict(bytes_gathered=together.bytes_gathered, bytes_summed=together.bytes_summed)
    return {"columns": found, "messages": together.count, **given, "seconds": seconds}


def gathered(part: torch.Tensor, rows: Case) -> SampleOutput:
    """All logits go to every process, which draws by itself."""
    widths = [rows.vocabulary * (i + 1) // dist.get_world_size() for i in range(dist.get_world_size())]
    sizes = [end - begin for begin, end in zip([0, *widths], widths, strict=False)]
    longest = max(sizes)
    padded = torch.nn.functional.pad(part, (0, longest - part.shape[1]))
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    whole = torch.cat([found[:, :size] for found, size in zip(parts, sizes, strict=True)], 1)
    return sample(whole, rows.params, seed=SEED)


def columns(out: SampleOutput) -> list[list[int]]:
    return [column.tolist() for column in (out.tokens, out.weight, out.total, out.kept)]


def table(records: list[Record]) -> runner.Rows:
    """A line a case."""
    headings = ["processes", "batch", "V", "rows", "filters", "messages", "KB", "gathered, KB", "ms"]
    return headings, [
        [
            *(str(record["processes"]), str(record["batch"]), f"{record['vocabulary']:,}"),
            *(record["kind"], record["filters"], str(record["messages"])),
            *(three_digits(given / 1e3) for given in (bytes_of(record), record["bytes_of_logits"])),
            " / ".join(three_digits(record["milliseconds"][name]["p50"]) for name in ("sharded", "gathered")),
        ]
        for record in records
    ]


def bytes_of(record: Record) -> int:
    return record["bytes_gathered"] + record["bytes_summed"]


def paper_table(records: list[Record]) -> runner.Rows:
    """What the counts mean on faster and slower links."""
    known = {(r["kind"], r["filters"]): r for r in records if r["batch"] == PAPER_BATCH}
    lines = []
    for link, ranks in product(LINKS, PAPER_RANKS):
        cells = [link, str(ranks)]
        for record in known.values():
            logits = 2 * record["vocabulary"] * PAPER_BATCH // ranks
            ours = on_paper(LINKS[link], ranks, record["messages"], record["bytes_gathered"], record["bytes_summed"])
            cells.append(f"{three_digits(ours)} / {three_digits(on_paper(LINKS[link], ranks, 1, logits))}")
        lines.append(cells)
    return ["link", "processes", *(f"{kind}, {name}" for kind, name in known)], lines


def on_paper(link: Link, ranks: int, messages: int, gathered: int, summed: int = 0) -> float:
    """Microseconds. A sum is sent twice, in parts; what is gathered comes from every other process.

    >>> on_paper(Link(10, 1), 8, 3, 1000, 1000)
    38.75
    """
    received = (ranks - 1) * (gathered + 2 * summed / ranks)
    return messages * link.latency + received / (1e3 * link.bandwidth)
