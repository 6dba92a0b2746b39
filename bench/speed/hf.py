"""`alea bench hf`: what sampling costs in a step of transformers' generate, its own (stock) beside ours (attached)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from itertools import groupby, product
from typing import Any
from unittest import mock

from bench import measure, runner
from bench.speed import goals
from bench.speed.counters import FUSED, counted
from bench.speed.sample import seconds_a_call, tell

HELP = "microseconds of sampling, operators and host syncs a step of transformers' generate, stock beside attached"
CHAINS: dict[str, dict[str, Any]] = {
    "none": {},
    "T+k+p": dict(temperature=0.8, top_k=50, top_p=0.9),
    "T+p": dict(temperature=0.8, top_p=0.9),
    "all": dict(temperature=0.8, top_k=50, top_p=0.9, min_p=0.02, typical_p=0.95, epsilon_cutoff=1e-4, eta_cutoff=1e-4),
}
OFF = dict(temperature=1.0, top_k=0, top_p=1.0)  # not given, top_k is 50
JUDGED, AT_LEAST = "T+k+p", 50  # the chain of the goal, and how many times less time sampling shall take
SEED = 1234
PROMPT, STEPS = 8, 16  # ids; decode steps, each with a text of its own length
GENERATE_ROUNDS, VERIFIED_TOKENS = 3, 2  # of whole generations, which are told for context
LEAST_SECONDS = 5e-3  # of one measurement, so that the first calls, on cold caches, weigh little
WIDTH = 100  # of the table in a file or pipe, for which rich would take 80
CAPTION = (
    "Medians of interleaved rounds in one process. µs: from the step's float32 logits to the next tokens, as in "
    "generate's loop, over and over on the same peaked rows, so with warm caches; inside: in generate itself, where "
    "the model has just used them. Operators: all that torch's profiler sees, also those within others, the fused "
    "call being one; in parentheses those that compute, without views and allocations. Syncs: what would wait for a "
    "GPU. ms: a step of the whole generate, by a Llama of two layers and width 64."
)

Draw = Callable[[int], Any]  # step -> token ids [B]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocabulary", type=int, nargs="+", default=[32000, 128256], metavar="V", help="default 32000 128256"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="B", help="default 1 8 32")
    chains = f"some of {', '.join(CHAINS)}; default all of them"
    parser.add_argument("--chains", nargs="+", default=list(CHAINS), metavar="NAME", help=chains)
    runner.add_options(parser, "hf", "three rounds of the first vocabulary and batch size")
    goal = f"tell whether {JUDGED} takes {AT_LEAST} times less time in every case; exit 1 if not"
    parser.add_argument("--check", action="store_true", help=goal)


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments)
    runner.check_names("chains", arguments.chains, CHAINS)
    if arguments.quick:
        arguments.rounds = 3
        arguments.vocabulary, arguments.batch = arguments.vocabulary[:1], arguments.batch[:1]
    records = runner.collect(
        "hf", cases(arguments), partial(measured, arguments.rounds), arguments.save, lambda _: None
    )
    for vocabulary, some in groupby(records, key=lambda record: record["vocabulary"]):
        show(list(some), f"stock / attached, V = {vocabulary:,}")
    tell(CAPTION)
    return show_goal(records) if arguments.check else 0


def cases(arguments: argparse.Namespace) -> list[tuple[Any, str]]:
    """Rows and chain, all of one vocabulary one after the other."""
    import torch

    from bench.rows import Case

    torch.set_num_threads(arguments.threads)
    rows = [Case("peaked", v, b) for v, b in product(arguments.vocabulary, arguments.batch)]  # checks them all
    return list(product(rows, arguments.chains))


def measured(rounds: int, case: tuple[Any, str]) -> dict[str, Any]:
    rows, chain = case
    return measured_case(llama(rows.vocabulary), rows.logits, chain, rounds)


@cache
def llama(vocabulary: int) -> Any:
    """Random weights; a bias on the head makes its rows peaked, which random weights alone leave flat."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    from bench.rows import Case

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).float().eval()
    model.lm_head.bias = torch.nn.Parameter(Case("peaked", vocabulary).logits[0])
    model.generation_config = GenerationConfig()  # no EOS: every sequence runs to its full length
    return model


def measured_case(model: Any, logits: Any, chain: str, rounds: int) -> dict[str, Any]:
    import torch

    batch, vocabulary = logits.shape
    step = Step(model, logits, chain)
    draws = {"stock": step.stock(), "attached": step.attached()}
    whole = {name: partial(generated, model, batch, chain, name == "attached") for name in draws}
    with torch.no_grad():  # as in generate
        verify(step, draws)
        verify_generate(step, whole)
        seconds = seconds_a_call(draws, rounds, LEAST_SECONDS)
        counts = {name: counted(draw, fused_calls_named()) for name, draw in draws.items()}
    generate_rounds = min(rounds, GENERATE_ROUNDS)
    inside = {name: seconds_inside(run, generate_rounds) for name, run in whole.items()}
    generations = measure.interleaved(whole, generate_rounds)
    return {
        "benchmark": "hf",
        "chain": chain,
        "vocabulary": vocabulary,
        "batch": batch,
        "rounds": rounds,
        "microseconds": {name: measure.quantiles([1e6 * s for s in times]) for name, times in seconds.items()},
        **{figure: {name: counts[name][figure] for name in counts} for figure in counts["stock"]},
        "microseconds_inside": {name: measure.quantiles([1e6 * s for s in times]) for name, times in inside.items()},
        "generate_rounds": generate_rounds,
        "generate_ms_a_step": {
            name: measure.quantiles([1e3 * s / STEPS for s in times]) for name, times in generations.items()
        },
        **measure.circumstances(),
    }


class Step:
    """What stands between a step's logits [B, V] and its next tokens in `GenerationMixin._sample`."""

    def __init__(self, model: Any, logits: Any, chain: str) -> None:
        import torch

        from samplers import SamplingParams

        self.chain, self.logits, self.params = chain, logits, SamplingParams(**CHAINS[chain])
        self.config = model._prepare_generation_config(None, do_sample=True, **OFF | CHAINS[chain])[0]
        self.processors = model._get_logits_processor(self.config, device="cpu")
        self.texts = [torch.zeros(len(logits), PROMPT + step, dtype=torch.int64) for step in range(STEPS)]

    def stock(self) -> Draw:
        import torch

        logits, texts, processors = self.logits, self.texts, self.processors

        def draw(step: int) -> Any:
            scores = processors(texts[step % STEPS], logits)
            return torch.multinomial(torch.softmax(scores, -1), 1).squeeze(1)

        return draw

    def attached(self) -> Draw:
        import torch

        logits, texts, processors = self.logits, self.texts, self.attached_processors(scores=False)

        def draw(step: int) -> Any:
            return torch.argmax(processors(texts[step % STEPS], logits), dim=-1)

        return draw

    def attached_processors(self, scores: bool) -> Any:
        """The list that `samplers.hf.decoding` gives generate's loop; with scores, it filters as generate returns."""
        from samplers.hf.chain import split
        from samplers.hf.fused import FusedList, FusedSampler
        from samplers.hf.options import Options

        chain = split(self.processors, self.config, None)
        return FusedList(FusedSampler(chain, Options(seed=SEED), self.texts[0], None, scores))

    def __str__(self) -> str:
        return f"{self.chain}, V = {self.logits.shape[1]:,}, batch {len(self.logits)}"


def generated(model: Any, batch: int, chain: str, attached: bool, new_tokens: int = STEPS, **more: Any) -> Any:
    """What generate returns, the model as it was afterwards."""
    import torch

    from samplers.hf import attach, detach

    if attached:
        attach(model, seed=SEED)
    ids = torch.zeros(batch, PROMPT, dtype=torch.int64)
    options = dict(attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=True, max_new_tokens=new_tokens)
    try:
        return model.generate(ids, **options, **OFF | CHAINS[chain], **more)
    finally:
        detach(model)


def seconds_inside(run: Callable[[], Any], rounds: int) -> list[float]:
    """Of every step of some generations."""
    run()
    with stopwatch() as seconds:
        for _ in range(rounds):
            run()
    return seconds


def verify(step: Step, draws: Mapping[str, Draw]) -> None:
    """Nothing is timed that is not right: ours draws what the reference draws, both keep and draw from one set."""
    import torch

    kept, ours = (
        processors(step.texts[0], step.logits) > -torch.inf
        for processors in (step.processors, step.attached_processors(scores=True))
    )
    if not torch.equal(kept, ours):
        raise RuntimeError(f"attached and stock differ in what they keep ({step}); nothing was measured")
    for position in range(2):
        if not torch.equal(draws["attached"](position), exact(step.logits, step, position)):
            raise RuntimeError(f"attached and the reference differ in tokens ({step}); nothing was measured")
        if not kept.gather(1, draws["stock"](position)[:, None]).all():
            raise RuntimeError(f"stock draws tokens that it cut ({step}); nothing was measured")


def verify_generate(step: Step, whole: Mapping[str, Callable[..., Any]]) -> None:
    """The tokens of the attached generate are those that the reference draws from its logits."""
    import torch

    output = whole["attached"](new_tokens=VERIFIED_TOKENS, return_dict_in_generate=True, output_logits=True)
    for position, logits in enumerate(output.logits):
        if not torch.equal(output.sequences[:, PROMPT + position], exact(logits, step, position)):
            raise RuntimeError(f"generate and the reference differ in tokens ({step}); nothing was measured")


def exact(logits: Any, step: Step, position: int) -> Any:
    import samplers

    return samplers.sample(logits, step.params, seed=SEED, position=position, backend="reference").tokens


def fused_calls_named() -> AbstractContextManager[Any]:
    """The fused call is no operator of torch's: while counting, it is given a name in the profile."""
    from torch.profiler import record_function

    from samplers.hf.fused import FusedSampler

    drawn = FusedSampler.drawn

    def named(*arguments: Any) -> Any:
        with record_function(FUSED):
            return drawn(*arguments)

    return mock.patch.object(FusedSampler, "drawn", named)


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds from the call of generate's list of processors to the tokens, for every step taken meanwhile."""
    import torch
    from transformers import LogitsProcessorList

    from samplers.hf.fused import FusedList

    began: list[float] = []
    seconds: list[float] = []

    def starts(function: Any) -> Any:
        def starting(*arguments: Any, **keywords: Any) -> Any:
            began.append(time.perf_counter())
            return function(*arguments, **keywords)

        return starting

    def stops(function: Any) -> Any:
        def stopping(*arguments: Any, **keywords: Any) -> Any:
            result = function(*arguments, **keywords)
            seconds.extend(time.perf_counter() - start for start in began[:1])  # of lists within lists, the outer
            began.clear()
            return result

        return stopping

    with ExitStack() as patches:
        for owner, name, wrapper in (
            (LogitsProcessorList, "__call__", starts),
            (FusedList, "__call__", starts),
            (torch, "multinomial", stops),
            (torch, "argmax", stops),
        ):
            patches.enter_context(mock.patch.object(owner, name, wrapper(getattr(owner, name))))
        yield seconds


def ratio(record: dict[str, Any]) -> float:
    return record["microseconds"]["stock"]["p50"] / record["microseconds"]["attached"]["p50"]


def show(records: list[dict[str, Any]], title: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("batch", "chain", "µs", "ratio", "inside, µs", "operators", "syncs", "ms"):
        table.add_column(heading, justify="left" if heading == "chain" else "right")
    for record in records:
        times, inside, whole = (record[n] for n in ("microseconds", "microseconds_inside", "generate_ms_a_step"))
        table.add_row(
            str(record["batch"]),
            record["chain"],
            both({name: f"{q['p50']:,.0f}" for name, q in times.items()}),
            f"{ratio(record):.1f}",
            both({name: f"{q['p50']:,.0f}" for name, q in inside.items()}),
            operators(record),
            both(record["host_syncs"]),
            both({name: f"{q['p50']:.3g}" for name, q in whole.items()}),
        )
    Console(width=None if Console().is_terminal else WIDTH).print(table)


def operators(record: dict[str, Any]) -> str:
    """All of them, in parentheses those that compute."""
    return both({name: f"{n} ({record['computing_operators'][name]})" for name, n in record["operators"].items()})


def both(figures: dict[str, Any]) -> str:
    return f"{figures['stock']} / {figures['attached']}"


def show_goal(records: list[dict[str, Any]]) -> int:
    """1 if a case of the judged chain misses the goal."""
    judged = [record for record in records if record["chain"] == JUDGED]
    if not judged:
        tell(f"{goals.UNKNOWN}: stock / attached >= {AT_LEAST} ({JUDGED})")
    for record in judged:
        verdict = goals.HOLDS if ratio(record) >= AT_LEAST else goals.MISSED
        case = f"{JUDGED}, V = {record['vocabulary']:,}, batch {record['batch']}"
        tell(f"{verdict}: stock / attached >= {AT_LEAST} ({case}); got {ratio(record):.3g}")
    return int(any(ratio(record) < AT_LEAST for record in judged))
