"""Sampling in a step of transformers' generate, stock and attached: verified, timed and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache, partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, LogitsProcessorList

import samplers
from bench.cases import CHAINS, Case, switched_on
from bench.peers.base import SEED, DrawTokens
from bench.records import Record, quantiles
from bench.speed.counters import counted, under_its_name
from bench.speed.timing import interleaved, microseconds, seconds_a_call
from samplers.hf import attach, detach
from samplers.hf.chain import split
from samplers.hf.fused import FusedList, FusedSampler
from samplers.hf.options import Options

OFF = dict(temperature=1.0, top_k=0, top_p=1.0)  # without it, top_k is 50
PROMPT, STEPS = 8, 16  # ids; decode steps, each with a text of another length
GENERATE_ROUNDS, VERIFIED_TOKENS = 3, 2  # of whole generations, reported for context
LEAST_SECONDS = 5e-3  # of one measurement, so that the first calls, on cold caches, weigh little


def measured(case: tuple[Case, str], rounds: int) -> Record:
    """case: its rows, and the name of the chain."""
    rows, chain = case
    model, step = llama(rows.vocabulary), Step(llama(rows.vocabulary), rows.logits, chain)
    draws = {"stock": step.stock(), "attached": step.attached()}
    whole = {name: partial(generated, model, rows.batch, chain, name == "attached") for name in draws}
    with torch.no_grad():  # as in generate
        verify(step, draws)
        verify_generate(step, whole["attached"])
        seconds = seconds_a_call(draws, rounds, LEAST_SECONDS)
        counts = {name: counted(draw, fused_calls_named()) for name, draw in draws.items()}
    generate_rounds = min(rounds, GENERATE_ROUNDS)
    inside = {name: seconds_inside(run, generate_rounds) for name, run in whole.items()}
    milliseconds = {n: [1e3 * s / STEPS for s in times] for n, times in interleaved(whole, generate_rounds).items()}
    return {
        "chain": chain,
        "vocabulary": rows.vocabulary,
        "batch": rows.batch,
        "rounds": rounds,
        "microseconds": microseconds(seconds),
        **{figure: {name: counts[name][figure] for name in counts} for figure in counts["stock"]},
        "microseconds_inside": microseconds(inside),
        "generate_rounds": generate_rounds,
        "generate_ms_a_step": {name: quantiles(times) for name, times in milliseconds.items()},
    }


@cache
def llama(vocabulary: int) -> Any:
    """Random weights; a bias on the head makes its rows peaked, which random weights alone leave flat."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config).float().eval()
    model.lm_head.bias = torch.nn.Parameter(Case("peaked", vocabulary).logits[0])
    model.generation_config = GenerationConfig()  # no EOS: every sequence runs to its full length
    return model


def options_of(chain: str) -> dict[str, Any]:
    """Of generate."""
    return OFF | switched_on(CHAINS[chain])


class Step:
    """From a step's logits [B, V] to its next tokens, as in `GenerationMixin._sample`."""

    def __init__(self, model: Any, logits: Tensor, chain: str) -> None:
        self.chain, self.logits, self.params = chain, logits, CHAINS[chain]
        self.config = model._prepare_generation_config(None, do_sample=True, **options_of(chain))[0]
        self.processors = model._get_logits_processor(self.config, device="cpu")
        self.texts = [torch.zeros(len(logits), PROMPT + step, dtype=torch.int64) for step in range(STEPS)]

    def stock(self) -> DrawTokens:
        def draw(step: int) -> Tensor:
            scores = self.processors(self.texts[step % STEPS], self.logits)
            return torch.multinomial(torch.softmax(scores, -1), 1).squeeze(1)

        return draw

    def attached(self) -> DrawTokens:
        processors = self.attached_processors(scores=False)
        return lambda step: torch.argmax(processors(self.texts[step % STEPS], self.logits), dim=-1)

    def attached_processors(self, scores: bool) -> FusedList:
        """The list that `samplers.hf.decoding` gives generate's loop; with scores, it filters as generate returns."""
        chain = split(self.processors, self.config, None)
        return FusedList(FusedSampler(chain, Options(seed=SEED), self.texts[0], None, scores))

    def exact(self, logits: Tensor, position: int) -> Tensor:
        """The reference's tokens."""
        return samplers.sample(logits, self.params, seed=SEED, position=position, backend="reference").tokens

    def __str__(self) -> str:
        return f"{self.chain}, V = {self.logits.shape[1]:,}, batch {len(self.logits)}"


def generated(model: Any, batch: int, chain: str, attached: bool, new_tokens: int = STEPS, **more: Any) -> Any:
    """The output of generate; the model is left as it was."""
    if attached:
        attach(model, seed=SEED)
    ids = torch.zeros(batch, PROMPT, dtype=torch.int64)
    options = dict(attention_mask=torch.ones_like(ids), pad_token_id=0, do_sample=True, max_new_tokens=new_tokens)
    try:
        return model.generate(ids, **options, **options_of(chain), **more)
    finally:
        detach(model)


def verify(step: Step, draws: Mapping[str, DrawTokens]) -> None:
    """Ours must draw the reference's tokens, and both must keep and draw from one set, or nothing is timed."""
    kept, ours = (
        processors(step.texts[0], step.logits) > -torch.inf
        for processors in (step.processors, step.attached_processors(scores=True))
    )
    if not torch.equal(kept, ours):
        raise RuntimeError(f"attached and stock differ in what they keep ({step}); nothing was measured")
    for position in range(2):
        if not torch.equal(draws["attached"](position), step.exact(step.logits, position)):
            raise RuntimeError(f"attached and the reference differ in tokens ({step}); nothing was measured")
        if not kept.gather(1, draws["stock"](position)[:, None]).all():
            raise RuntimeError(f"stock draws tokens that it cut ({step}); nothing was measured")


def verify_generate(step: Step, attached: Callable[..., Any]) -> None:
    """The tokens of the attached generate are those that the reference draws from its logits."""
    output = attached(new_tokens=VERIFIED_TOKENS, return_dict_in_generate=True, output_logits=True)
    for position, logits in enumerate(output.logits):
        if not torch.equal(output.sequences[:, PROMPT + position], step.exact(logits, position)):
            raise RuntimeError(f"generate and the reference differ in tokens ({step}); nothing was measured")


def fused_calls_named() -> AbstractContextManager[Any]:
    """The fused call is no operator of torch's: meanwhile, it has a name in the profile."""
    return mock.patch.object(FusedSampler, "drawn", under_its_name(FusedSampler.drawn))


def seconds_inside(run: Callable[[], Any], rounds: int) -> list[float]:
    """Of every step of `rounds` generations, after one to warm up."""
    run()
    with stopwatch() as seconds:
        for _ in range(rounds):
            run()
    return seconds


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Seconds from the call of generate's list of processors to the tokens, for every step taken meanwhile."""
    began, seconds = list[float](), list[float]()

    def timed(owner: Any, name: str) -> AbstractContextManager[Any]:
        function = getattr(owner, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            if owner is not torch:
                began.append(time.perf_counter())
            result = function(*arguments, **keywords)
            if owner is torch and began:
                seconds.append(time.perf_counter() - began[0])  # of lists within lists, the outer
                began.clear()
            return result

        return mock.patch.object(owner, name, call)

    lists, draws = (LogitsProcessorList, FusedList), ("multinomial", "argmax")
    with ExitStack() as patches:
        for patch in [*(timed(owner, "__call__") for owner in lists), *(timed(torch, name) for name in draws)]:
            patches.enter_context(patch)
        yield seconds
