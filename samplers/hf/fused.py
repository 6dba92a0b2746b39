"""The fused call, as generate sees it: the last processor of its list.

generate's loop is asked for the arg max of the scores that this processor returns (`do_sample=False` in the copy of
the config that the loop gets). They are a `Drawn`: a tensor of scores like any other, whose arg max is the token that
was drawn. So nothing of the size of the vocabulary is written for a token to be handed over, and where the caller
wants scores, they are the ones that generate returns without us.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from samplers.backends import implementation
from samplers.batch import Batch, Integers, integers, packed_for
from samplers.hf.chain import Chain
from samplers.hf.options import Options
from samplers.params import MAX_VOCABULARY, PLAIN
from samplers.sampler import InvalidLogits, filter_logits

ARGMAX = (torch.argmax, torch.Tensor.argmax)


class Drawn(torch.Tensor):
    """Scores [B, V] whose arg max over the vocabulary is the tokens drawn, int64 [B]."""

    tokens: torch.Tensor
    taken: bool

    @staticmethod
    def of(scores: torch.Tensor, tokens: torch.Tensor) -> Drawn:
        """No copy: another view of the scores."""
        drawn = scores.as_subclass(Drawn)
        drawn.tokens, drawn.taken = tokens, False
        return drawn

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in ARGMAX and over_the_vocabulary(*args, **kwargs):
            drawn = args[0] if args else kwargs["input"]
            drawn.taken = True
            return drawn.tokens
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)


def over_the_vocabulary(input: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> bool:  # noqa: A002
    """Whether arg max is called as generate's loop calls it."""
    return dim in (-1, 1) and not keepdim


def plain(scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The scores of all steps as ordinary tensors."""
    return tuple(step.as_subclass(torch.Tensor) for step in scores)


class FusedSampler(LogitsProcessor):
    """Draws a token a row at every step of one call of generate.

    chain: parameters, and processors that act on the filtered scores. options: seed, stream and backend. prompt:
    int64 [B, L], the ids before the first step. mask: [B, L], 0 where the prompt is padding, or None. scores: whether
    the caller is to see the scores, as the warpers leave them.
    """

    def __init__(
        self, chain: Chain, options: Options, prompt: torch.Tensor, mask: torch.Tensor | None, scores: bool
    ) -> None:
        size, self.prompt_length = prompt.shape
        self.chain, self.backend, self.scores = chain, options.backend, scores
        self.params = packed_for(chain.params, size, MAX_VOCABULARY)
        self.seed = on_device("seed", options.seed_of_call(), prompt)
        self.stream = None if options.stream is None else on_device("stream", options.stream, prompt)
        self.padding = mask == 0 if mask is not None and mask.shape == prompt.shape else None
        self.invalid = Watch()
        self.last: Drawn | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.finish()
        step = input_ids.shape[1] - self.prompt_length
        shown = scores
        if self.scores or self.chain.reshaped:
            text = self.text(input_ids)
            shown = filtered = filter_logits(scores, self.params, **text, backend=self.backend, on_invalid="mark")
            for processor in self.chain.after:
                shown = processor(input_ids, shown)
            if self.chain.reshaped:  # a row that was invalid stays so, for `drawn` to name it with its step
                scores = shown.masked_fill(filtered.amax(-1, keepdim=True) == -torch.inf, -torch.inf)
        tokens = self.drawn(input_ids, scores, step)
        self.last = Drawn.of(shown, tokens)
        return self.last

    def drawn(self, input_ids: torch.Tensor, scores: torch.Tensor, step: int) -> torch.Tensor:
        """As `sample`, of whose columns only the tokens are needed."""
        params, text = (PLAIN, {}) if self.chain.reshaped else (self.params, self.text(input_ids))
        batch = Batch(scores, params, **text, seed=self.seed, position=step, stream=self.stream)
        columns = implementation(self.backend, batch.on_gpu).sample(batch, details=False)
        tokens = batch.outputs([columns.tokens])[0]
        if batch.on_gpu:
            return self.invalid.watched(tokens, step)
        if not columns.all_valid and (tokens < 0).any():
            raise InvalidLogits((tokens < 0).nonzero()[:, 0].tolist(), step)
        return tokens

    def text(self, input_ids: torch.Tensor) -> dict[str, Any]:
        """The history that penalties count, without padding."""
        if not self.params.uses_history:
            return {}
        history = input_ids
        if self.padding is not None:
            history = input_ids.clone()
            history[:, : self.prompt_length].masked_fill_(self.padding, -1)
        return {"history": history, "history_start": self.prompt_length}

    def finish(self) -> None:
        """After every step: what was drawn must have been taken, and every row must have been valid."""
        if self.last is not None and not self.last.taken:
            raise RuntimeError(
                "transformers did not take the tokens that samplers.hf drew: this version chooses them in a way that "
                "is not known here; samplers.hf.detach(model) draws without it"
            )
        self.invalid.check()


class FusedList(LogitsProcessorList):
    """generate's list: the processors that stay, then the fused call.

    transformers' own list inspects the signature of every processor at every step, which takes as long as the draw.
    """

    def __init__(self, sampler: FusedSampler) -> None:
        super().__init__([*sampler.chain.before, sampler])
        self.before, self.sampler = LogitsProcessorList(sampler.chain.before), sampler

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        return self.sampler(input_ids, self.before(input_ids, scores, **kwargs))


class Watch:
    """Invalid rows on a GPU, found without waiting for it.

    The flags of a step are copied while the GPU goes on and read one step later, when generate itself has waited for
    that step to decide whether to stop. Until then an invalid row goes on with token 0.
    """

    def __init__(self) -> None:
        self.pending: tuple[torch.Tensor, Any, int] | None = None

    def watched(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
        flags = torch.empty(tokens.shape, dtype=torch.bool, pin_memory=tokens.is_cuda)
        flags.copy_(tokens < 0, non_blocking=True)
        copied = torch.cuda.Event() if tokens.is_cuda else None
        if copied:
            copied.record()
        self.pending = flags, copied, step
        return tokens.clamp(min=0)

    def check(self) -> None:
        if self.pending is None:
            return
        flags, copied, step = self.pending
        self.pending = None
        if copied:
            copied.synchronize()
        if flags.any():
            raise InvalidLogits(flags.nonzero()[:, 0].tolist(), step)


def on_device(name: str, value: Integers, prompt: torch.Tensor) -> Integers:
    """Checked against the number of rows; an array goes to the GPU once, not at every step."""
    checked = integers(name, value, len(prompt))
    if isinstance(checked, np.ndarray) and prompt.is_cuda:
        return torch.from_numpy(checked.copy()).to(prompt.device)
    return checked
