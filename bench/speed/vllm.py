"""`alea bench vllm`: the cost of sampling in a step of vLLM's engine, by itself (stock) and by us.

It runs where vLLM is installed: `.venv-vllm/bin/alea bench vllm`, after `make test-vllm`.
"""

from __future__ import annotations

import argparse
import os
from functools import partial
from itertools import product

import torch

from bench import runner
from bench.cases import Case
from bench.records import Record, three_digits
from bench.speed import goals
from samplers.extras import how_to_install

NAMES = ("none", "k50+p.9", "p.9")
ENVIRONMENT = {  # read when vLLM is imported: the V1 runner, in this process, with a small cache, quiet and offline
    **{"VLLM_USE_V2_MODEL_RUNNER": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"},
    **{"VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
}
CAPTION = (
    "Milliseconds from the logits of a batch to its next tokens, inside vLLM's engine (V1 model runner, on the CPU), "
    "each request with a seed; peaked rows, T = 0.8. stock: vLLM's own sampler, ours: samplers.vllm:Draw in its "
    "place, on the same logits at the same step"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sizes = "default 32000 128256"
    parser.add_argument("--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help=sizes)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64], metavar="B", help="default 1 16 64")
    runner.add_options(parser, "vllm", "three rounds of the first vocabulary and batch size", rounds=9)
    parser.add_argument("--check", action="store_true", help="say whether the goals hold; exit 1 if not")


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
    cases = [Case("peaked", *sizes) for sizes in product(arguments.vocabulary, arguments.batch, NAMES)]
    os.environ.update(ENVIRONMENT)
    try:
        from bench.speed import vllm_step
    except ImportError as error:
        raise RuntimeError(f"alea bench vllm needs vLLM: {how_to_install('vllm')}") from error
    torch.set_num_threads(arguments.threads)
    measure = partial(vllm_step.measured, rounds=arguments.rounds)
    records = runner.collect("vllm", cases, measure, arguments.save)
    if records:
        runner.print_table("stock / ours", table(records), f"{CAPTION}.", left=0)
    return goals.check("vllm", records) if arguments.check else 0


def table(records: list[Record]) -> runner.Rows:
    """A line a case."""
    lines = []
    for record in records:
        stock, alea = (record["milliseconds"][name]["p50"] for name in ("stock", "alea"))
        times = [three_digits(stock), three_digits(alea), f"{three_digits(stock / alea)} ×"]
        lines.append([str(record["batch"]), f"{record['vocabulary']:,}", record["filters"], *times])
    return ["batch", "V", "filters", "stock", "ours", "ratio"], lines
