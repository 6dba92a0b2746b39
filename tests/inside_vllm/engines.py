"""vLLM with the storyteller, and the texts that it, alea and transformers give for the same requests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from vllm import LLM, SamplingParams

import samplers
from model import Llama, Tokenizer, generate
from samplers.textbook import softmax
from samplers.vllm import Draw

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "model/storyteller"
CHAIN = dict(temperature=0.9, top_k=50, top_p=0.95)
PLAIN = dict(temperature=0.9)
SEED, LENGTH = 7, 30
WHO = (
    "The dragon",
    "A king",
    "Once upon a time",
    "She",
    "In the forest",
    "Nobody",
    "The old fisherman of the lake",
    "Hans",
)
WHAT = (
    "",
    " said",
    " had three sons",
    " was not at all",
    " went to the",
    ", and then",
    ": why?",
    " and the little red bird",
)
PROMPTS = [who + what for what in WHAT for who in WHO]
LONG = [" ".join([prompt] * 80) for prompt in ("The dragon sleeps", "A king had", "She was not", "Hans went to")]

Ids = list[list[int]]
ENGINES: list[LLM] = []  # that were started


def new_engine(**options: Any) -> LLM:
    """An engine in this process that draws with `Draw`. It lives on: the end of one takes vLLM's groups from all."""
    settings = dict(dtype="float32", enforce_eager=True, max_model_len=512, max_num_seqs=16, seed=0)
    processors = ["samplers.vllm:Draw"]
    ENGINES.append(LLM(str(MODEL), **settings | dict(logits_processors=processors, disable_log_stats=True) | options))
    return ENGINES[-1]


def request(stream: int | None = None, **options: Any) -> SamplingParams:
    """A request of `LENGTH` tokens with a seed, whose extra_args are the stream and `extra`."""
    extra = options.pop("extra", {}) | ({} if stream is None else {"stream": stream})
    settings = dict(seed=SEED, max_tokens=LENGTH, ignore_eos=True) | options
    return SamplingParams(**settings, extra_args=extra or None)


def requests(count: int, **options: Any) -> list[SamplingParams]:
    """One for each stream from 0."""
    return [request(stream, **options) for stream in range(count)]


def ids_of(llm: LLM, prompts: Sequence[Any], asked: Any) -> Ids:
    """Of every text, in order."""
    replies = llm.generate(list(prompts), asked, use_tqdm=False)
    return [list(text.token_ids) for reply in replies for text in reply.outputs]


def alea_ids(prompts: Sequence[Any], streams: Sequence[int] | None = None, **options: Any) -> Ids:
    """Of alea's own `generate`, without the defaults of the model's generation_config."""
    settings = (
        dict(seed=SEED, max_new_tokens=LENGTH, do_sample=True, eos_token_id=(), temperature=1.0, top_p=1.0) | options
    )
    texts = generate(*storyteller(), list(prompts), stream=streams, model_logprobs=False, **settings)
    return [text.ids for (text,) in texts]


def min_p_first_ids(prompts: Sequence[str], min_p: float, top_p: float, length: int = LENGTH) -> Ids:
    """In vLLM's order: first min_p, of the greatest probability in float64, as a mask; then this engine's top-p."""
    params = samplers.SamplingParams(top_p=top_p)
    texts = []
    for stream, prompt in enumerate(prompts):
        text: list[int] = []
        for position in range(length):
            logits = next_logits(prompt, text)
            p = softmax(logits.double().numpy())
            out = samplers.sample(
                logits,
                params,
                seed=SEED,
                stream=stream,
                position=position,
                allowed=torch.from_numpy(p >= min_p * p.max()),
            )
            text.append(int(out.tokens[0]))
        texts.append(text)
    return texts


@torch.inference_mode()
def next_logits(prompt: str, text: list[int]) -> torch.Tensor:
    """float32 [V], after the prompt and a part of its text."""
    model, tokenizer = storyteller()
    return model(torch.tensor([tokenizer.encode(prompt) + text]))[0, -1]


@functools.cache
def storyteller() -> tuple[Llama, Tokenizer]:
    return Llama.from_pretrained(dtype=torch.float32), Tokenizer.from_pretrained()


def runner_of(llm: LLM) -> Any:
    return llm.llm_engine.model_executor.driver_worker.worker.model_runner


@contextmanager
def watched_logits(llm: LLM, watch: Callable[[torch.Tensor], Any]) -> Iterator[None]:
    """Shows the model's logits [B, V] of each step, which may be changed there."""
    model = runner_of(llm).model
    real = model.compute_logits

    def watched(*hidden: torch.Tensor) -> torch.Tensor:
        logits = real(*hidden)
        watch(logits)
        return logits

    model.compute_logits = watched
    try:
        yield
    finally:
        del model.compute_logits


def draw_of(llm: LLM) -> Draw:
    """The processor that vLLM has made."""
    runner = runner_of(llm)
    of_v2 = getattr(runner.sampler, "logits_processors", None)
    return next(p for p in of_v2 or runner.input_batch.logitsprocs.all if isinstance(p, Draw))
