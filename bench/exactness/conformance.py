"""`alea bench conformance`: `samplers.conformance` on our backends, on transformers' chain, and on plain torch."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from bench import measure, runner

if TYPE_CHECKING:
    import torch

    from samplers import SamplingParams
    from samplers.conformance import Finding, Sampler

HELP = "statistical checks of our backends, of transformers and of plain torch"
DRAWS, QUICK_DRAWS = 150_000, 10_000
REFERENCE_SHARE = 50  # the reference draws a row at a time, in Python


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="N", help=f"of each row; default {DRAWS:,}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first call; default 0")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these samplers")
    parser.add_argument("--device", default="cpu", help="where the logits lie; default cpu")
    runner.add_record_options(parser, "conformance", f"{QUICK_DRAWS:,} draws")


def run(arguments: argparse.Namespace) -> int:
    runner.check_least(arguments, draws=1)
    if arguments.quick:
        arguments.draws = QUICK_DRAWS
    candidates = contestants(arguments.device)
    runner.check_names("only", arguments.only or [], candidates)
    chosen = [name for name in candidates if not arguments.only or name in arguments.only]
    measured = partial(record, candidates=candidates, arguments=arguments)
    records = runner.collect("conformance", chosen, measured, arguments.save, tell)
    if records:
        show(records)
    return 0


def contestants(device: str) -> dict[str, Sampler]:
    """Every sampler that can run here, by name; says which can't."""
    from samplers.backends import backends
    from samplers.conformance import alea

    candidates: dict[str, Sampler] = {}
    for name, state in backends().items():
        if state == "ok" and (name == "triton") == device.startswith("cuda"):
            candidates[f"alea {name}"] = alea(name)
        else:  # Triton's interpreter takes 30 to 200 ms a row
            print(f"skipped: alea {name} ({f'not for logits on {device}' if state == 'ok' else state})")
    try:
        candidates["transformers"] = transformers_chain()
    except ImportError as error:
        print(f"skipped: transformers ({error})")
    draws = {"multinomial": multinomial, "exponential": exponential, "Gumbel": gumbel, "inversion": inversion}
    return candidates | {f"torch {name}": torch_chain(draw) for name, draw in draws.items()}


def record(name: str, candidates: dict[str, Sampler], arguments: argparse.Namespace) -> dict[str, Any]:
    """One sampler's findings, with the circumstances."""
    from samplers import conformance

    draws = max(1, arguments.draws // REFERENCE_SHARE) if name == "alea reference" else arguments.draws
    began = time.perf_counter()
    findings = conformance.run(candidates[name], draws, arguments.seed, arguments.device)
    return {
        "benchmark": "conformance",
        "sampler": name,
        "draws": draws,
        "seed": arguments.seed,
        "device": arguments.device,
        "seconds": float(f"{time.perf_counter() - began:.3g}"),
        "findings": [in_json(finding) for finding in findings],
        **measure.circumstances(),
    }


def in_json(finding: Finding) -> dict[str, Any]:
    """An infinite or absent figure becomes None: JSON has neither."""
    statistic, limit = (value if math.isfinite(value) else None for value in (finding.statistic, finding.limit))
    return asdict(finding) | {"statistic": statistic, "limit": limit}


# The other samplers, in float32, as they are commonly written.


def transformers_chain() -> Sampler:
    """transformers' warpers in the order of `generate`, softmax, torch.multinomial, as its `_sample` does."""
    from transformers.generation import logits_process as hf

    def warpers(p: SamplingParams) -> list[Any]:
        n = p.min_tokens_to_keep
        chain: list[Any] = [hf.TemperatureLogitsWarper(p.temperature)] if p.temperature != 1 else []
        chain += [hf.TopKLogitsWarper(p.top_k, min_tokens_to_keep=n)] if p.top_k else []
        chain += [hf.TopPLogitsWarper(p.top_p, min_tokens_to_keep=n)] if p.top_p < 1 else []
        chain += [hf.MinPLogitsWarper(p.min_p, min_tokens_to_keep=n)] if p.min_p else []
        chain += [hf.TypicalLogitsWarper(p.typical_p, min_tokens_to_keep=n)] if p.typical_p < 1 else []
        chain += [hf.EpsilonLogitsWarper(p.epsilon_cutoff, min_tokens_to_keep=n)] if p.epsilon_cutoff else []
        chain += [hf.EtaLogitsWarper(p.eta_cutoff, min_tokens_to_keep=n)] if p.eta_cutoff else []
        return chain

    def draw(logits: torch.Tensor, params: SamplingParams, seed: int) -> torch.Tensor:
        for warper in warpers(params):
            logits = warper(None, logits)
        return multinomial(logits, generator(logits, seed))

    return draw


def torch_chain(draw: Callable[[torch.Tensor, torch.Generator], torch.Tensor]) -> Sampler:
    """Temperature, top-k, sorted top-p and min-p as most code bases write them, then the draw given."""
    import torch

    def sampler(logits: torch.Tensor, p: SamplingParams, seed: int) -> torch.Tensor:
        for name, off in (("typical_p", 1), ("epsilon_cutoff", 0), ("eta_cutoff", 0), ("min_tokens_to_keep", 1)):
            if getattr(p, name) != off:
                raise NotImplementedError(name)
        if p.temperature == 0:
            return logits.argmax(-1)
        logits = logits / p.temperature
        if p.top_k:
            least = logits.topk(min(p.top_k, logits.shape[-1])).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if p.top_p < 1:
            ordered, ids = logits.sort(descending=True)
            probabilities = ordered.softmax(-1)
            cut = probabilities.cumsum(-1) - probabilities >= p.top_p  # the mass before the token
            logits = logits.masked_fill(torch.zeros_like(cut).scatter(-1, ids, cut), -torch.inf)
        if p.min_p:
            probabilities = logits.softmax(-1)
            cut = probabilities < p.min_p * probabilities.amax(-1, keepdim=True)
            logits = logits.masked_fill(cut, -torch.inf)
        return draw(logits, generator(logits, seed))

    return sampler


def generator(logits: torch.Tensor, seed: int) -> torch.Generator:
    import torch

    return torch.Generator(logits.device).manual_seed(seed)


def multinomial(logits: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """torch.multinomial on float32 probabilities."""
    return logits.softmax(-1).multinomial(1, generator=rng)[:, 0]


def exponential(logits: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """argmax of p / E, E ~ Exp(1): gpt-fast's; on a CPU torch.multinomial does the same for one draw."""
    import torch

    return (logits.softmax(-1) / torch.empty_like(logits).exponential_(1, generator=rng)).argmax(-1)


def gumbel(logits: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """argmax of logit + Gumbel noise, made of torch.rand, whose multiples of 2^-24 bound the noise by 16.6."""
    import torch

    uniform = torch.rand(logits.shape, generator=rng, device=logits.device)
    return (logits - torch.log(-torch.log(uniform))).argmax(-1)


def inversion(logits: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """The first token whose cumulative probability exceeds u, both float32."""
    import torch

    running = logits.softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=rng, device=logits.device)
    return torch.searchsorted(running, uniform, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def tell(record: dict[str, Any]) -> None:
    """A line as soon as a sampler is checked; the table comes at the end."""
    found = (f"{finding['check']} {word(finding)}" for finding in record["findings"])
    print(f"{record['sampler']}, {record['draws']:,} draws of each row: {', '.join(found)}", flush=True)


def show(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"conformance, at most {max(one['draws'] for one in records):,} draws of each row",
        caption="pass: not distinguishable from the exact distribution with so many draws; *: some cases not supported",
    )
    table.add_column("sampler", no_wrap=True)
    for finding in records[0]["findings"]:
        table.add_column(finding["check"], justify="center")
    for one in records:
        table.add_row(one["sampler"], *map(word, one["findings"]))
    console = Console()
    console.print(table)
    for one in records:
        for finding in one["findings"]:
            if finding["passed"] is not True:
                text = f"{word(finding)}  {one['sampler']}, {finding['check']}: {finding['message']}"
                console.print(text, markup=False, highlight=False)


def word(finding: dict[str, Any]) -> str:
    if finding["passed"] is None:
        return "—"
    partly = "not supported" in finding["message"]
    return ("pass" if finding["passed"] else "FAIL") + ("*" if partly else "")
