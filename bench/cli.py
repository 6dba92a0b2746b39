"""`alea bench`: one subcommand a benchmark. A benchmark is imported only when it is chosen."""

from __future__ import annotations

from model.commands.parser import CommandParser, add_commands

HELP = "measure speed, compared with other implementations"
BENCHMARKS = {  # module, help
    "sample": ("bench.speed.sample", "microseconds a sampling call on the CPU: ours, the peers', and reading the rows"),
    "growth": (
        "bench.speed.growth",
        "the growth of a sampling call's time with the vocabulary and the batch: µs per thousand logits + fixed",
    ),
    "isa": (
        "bench.speed.isa",
        "the C++ backend's time by instruction set: AVX-512, AVX2 with FMA, and the baseline, which has no fma",
    ),
    "decode": ("bench.speed.decode", "tokens a second of generate, ours and the peers', with the same weights"),
    "serve": (
        "bench.speed.serve",
        "tokens and requests a second of alea serve under load, and the waiting for tokens, ours and the peers'",
    ),
    "hf": (
        "bench.speed.hf",
        "microseconds of sampling, operators and host syncs a step of transformers' generate, stock and attached",
    ),
    "vllm": (
        "bench.speed.vllm",
        "milliseconds of sampling in a step of vLLM's engine, by vLLM itself and by samplers.vllm:Draw",
    ),
    "sharded": (
        "bench.speed.sharded",
        "messages, bytes and milliseconds of a draw over a vocabulary divided over processes",
    ),
    "load": (
        "bench.loading.load",
        "seconds and memory of loading a checkpoint, by shape and dtype, and the arithmetic of Llama-2-7B's weights",
    ),
    "quantization": (
        "bench.loading.quantization",
        "KL divergence, tokens that stay the same and speed of the built-in model in 16, 8 and 4 bits",
    ),
    "kernels": (
        "bench.kernels.kernels",
        "compile every Triton kernel without a GPU: registers, spills, instructions, and whether float32 is exact",
    ),
    "gpu": (
        "bench.speed.gpu",
        "microseconds a sampling call on a GPU: ours, torch's, FlashInfer's, and reading the rows",
    ),
    "identity": (
        "bench.exactness.identity",
        "compare a backend with the definition to the bit: W of every float32; generated rows, kept set to token",
    ),
    "conformance": (
        "bench.exactness.conformance",
        "statistical checks of our backends, of transformers and of plain torch",
    ),
    "report": (
        "bench.report",
        "renew the tables and pictures of README.md and docs/ from the records in bench/results/",
    ),
}


def add_arguments(parser: CommandParser) -> None:
    add_commands(parser, "benchmark", BENCHMARKS)
