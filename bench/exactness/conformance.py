"""`alea bench conformance`: `samplers.conformance` on our backends, on transformers' chain, and on plain torch."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from torch import Generator, Tensor

from bench import runner
from bench.cases import switched_on
from bench.peers.transformers import warpers
from bench.records import Record, four_digits
from model.versions import installed
from samplers import SamplingParams, backends, conformance
from samplers.conformance import Finding, Sampler

DRAWS, QUICK_DRAWS = 150_000, 10_000
REFERENCE_SHARE = 50  # the reference draws a row at a time, in Python
CAPTION = "pass: not distinguishable from the exact distribution by these draws; *: some cases not supported; —: none"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help=f"of each row; default {DRAWS:,}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first call; default 0")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these samplers")
    parser.add_argument("--device", default="cpu", help="of the logits; default cpu")
    runner.add_record_options(parser, "conformance", f"{QUICK_DRAWS:,} draws")


def run(arguments: argparse.Namespace) -> int:
    runner.check_least(arguments, draws=1)
    if arguments.quick:
        arguments.draws = QUICK_DRAWS
    known = ours(arguments.device) | peers()
    runner.check_names("only", arguments.only or [], known)
    chosen = [name for name in known if not arguments.only or name in arguments.only]
    measure = partial(measured, known=known, arguments=arguments)
    records = runner.collect("conformance", chosen, measure, arguments.save)
    if records:
        runner.print_table("conformance", table(records), CAPTION)
        for record in records:
            for finding in record["findings"]:
                if finding["passed"] is not True:
                    runner.say(f"{word(finding)}  {record['sampler']}, {finding['check']}: {finding['message']}")
    return 0


def ours(device: str) -> dict[str, Sampler]:
    """Every backend that can run here, by name; prints the others with the reason."""
    found: dict[str, Sampler] = {}
    for name, state in backends().items():
        if state == "ok" and (name == "triton") == device.startswith("cuda"):
            found[f"alea {name}"] = conformance.alea(name)
        else:  # Triton's interpreter takes 30 to 200 ms a row
            print(f"skipped: alea {name} ({f'not for logits on {device}' if state == 'ok' else state})")
    return found


def peers() -> dict[str, Sampler]:
    """The other samplers, in float32, as they are commonly written."""
    draws = {"multinomial": multinomial, "exponential": exponential, "Gumbel": gumbel, "inversion": inversion}
    found: dict[str, Sampler] = {f"torch {name}": partial(torch_chain, draw) for name, draw in draws.items()}
    if installed("transformers") is None:
        print("skipped: transformers (not installed)")
        return found
    return {"transformers": transformers_chain, **found}


def measured(name: str, known: dict[str, Sampler], arguments: argparse.Namespace) -> Record:
    draws = max(1, arguments.draws // REFERENCE_SHARE) if name == "alea reference" else arguments.draws
    began = time.perf_counter()
    findings = conformance.run(known[name], draws, arguments.seed, arguments.device)
    return {
        "sampler": name,
        "draws": draws,
        "seed": arguments.seed,
        "device": arguments.device,
        "seconds": four_digits(time.perf_counter() - began),
        "findings": [in_json(finding) for finding in findings],
    }


def in_json(finding: Finding) -> Record:
    """An infinite or absent figure becomes None: JSON has neither."""
    statistic, limit = (value if math.isfinite(value) else None for value in (finding.statistic, finding.limit))
    return asdict(finding) | {"statistic": statistic, "limit": limit}


def transformers_chain(logits: Tensor, params: SamplingParams, seed: int) -> Tensor:
    """transformers' warpers in the order of `generate`, softmax, torch.multinomial, as its `_sample` does."""
    return multinomial(warpers(params)(None, logits), generator(logits, seed))


def torch_chain(
    draw: Callable[[Tensor, Generator], Tensor], logits: Tensor, params: SamplingParams, seed: int
) -> Tensor:
    """Temperature, top-k, sorted top-p and min-p as most code bases write them, then the given draw."""
    for name in switched_on(params):
        if name not in ("temperature", "top_k", "top_p", "min_p"):
            raise NotImplementedError(name)
    if params.temperature == 0:
        return logits.argmax(-1)
    logits = logits / params.temperature
    if params.top_k:
        least = logits.topk(min(params.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if params.top_p < 1:
        ordered, ids = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        cut = probabilities.cumsum(-1) - probabilities >= params.top_p  # the mass before the token
        logits = logits.masked_fill(torch.zeros_like(cut).scatter(-1, ids, cut), -torch.inf)
    if params.min_p:
        probabilities = logits.softmax(-1)
        cut = probabilities < params.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(cut, -torch.inf)
    return draw(logits, generator(logits, seed))


def generator(logits: Tensor, seed: int) -> Generator:
    return Generator(logits.device).manual_seed(seed)


def multinomial(logits: Tensor, rng: Generator) -> Tensor:
    """torch.multinomial on float32 probabilities."""
    return logits.softmax(-1).multinomial(1, generator=rng)[:, 0]


def exponential(logits: Tensor, rng: Generator) -> Tensor:
    """argmax of p / E, E ~ Exp(1): gpt-fast's; on a CPU torch.multinomial does the same for one draw."""
    return (logits.softmax(-1) / torch.empty_like(logits).exponential_(1, generator=rng)).argmax(-1)


def gumbel(logits: Tensor, rng: Generator) -> Tensor:
    """argmax of logit + Gumbel noise, made of torch.rand, whose multiples of 2^-24 bound the noise by 16.6."""
    uniform = torch.rand(logits.shape, generator=rng, device=logits.device)
    return (logits - torch.log(-torch.log(uniform))).argmax(-1)


def inversion(logits: Tensor, rng: Generator) -> Tensor:
    """The first token whose cumulative probability exceeds u, both float32."""
    running = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=rng, device=logits.device)
    return torch.searchsorted(running, uniform, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def table(records: list[Record]) -> runner.Rows:
    """A line a sampler."""
    checks = [finding["check"].replace("_", " ") for finding in records[0]["findings"]]
    lines = [[record["sampler"], f"{record['draws']:,}", *map(word, record["findings"])] for record in records]
    return ["sampler", "draws a row", *checks], lines


def word(finding: Record) -> str:
    if finding["passed"] is None:
        return "—"
    partly = "not supported" in finding["message"]
    return ("pass" if finding["passed"] else "FAIL") + ("*" if partly else "")
