"""`alea bench`: one subcommand a benchmark."""

from __future__ import annotations

import argparse

from bench import report
from bench.exactness import conformance, identity
from bench.kernels import kernels
from bench.loading import load, quantization
from bench.speed import decode, gpu, growth, hf, isa, sample

HELP = "measure speed beside other implementations"
BENCHMARKS = {
    "sample": sample,
    "growth": growth,
    "isa": isa,
    "decode": decode,
    "hf": hf,
    "load": load,
    "quantization": quantization,
    "kernels": kernels,
    "gpu": gpu,
    "identity": identity,
    "conformance": conformance,
    "report": report,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    benchmarks = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    for name, module in BENCHMARKS.items():
        benchmark = benchmarks.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(benchmark)
        benchmark.set_defaults(run_benchmark=module.run)


def run(arguments: argparse.Namespace) -> int:
    return arguments.run_benchmark(arguments)
