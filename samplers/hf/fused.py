"""The fused call as generate sees it: the last processor of its list.

generate's loop takes the arg max of the scores that this processor returns (the loop's copy of the config has
`do_sample=False`). The scores are a `Drawn`: an ordinary tensor of scores whose arg max is the token drawn. A token is
thus returned without writing a tensor as large as the vocabulary, and a caller who wants scores gets the same as
without the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor, LogitsProcessorList

from samplers.batch import Integers, integers, packed_for
from samplers.hf.chain import Chain
from samplers.hf.options import Options
from samplers.params import MAX_VOCABULARY, PLAIN
from samplers.sampler import InvalidLogits, filter_logits, sample

ARGMAX = (torch.argmax, torch.Tensor.argmax)


class Drawn(torch.Tensor):
    """Scores [B, V] whose arg max over the vocabulary gives the tokens drawn, int64 [B]."""

    tokens: torch.Tensor
    taken: bool

    @staticmethod
    def of(scores: torch.Tensor, tokens: torch.Tensor) -> Drawn:
        """A view of the scores, not a copy."""
        return scores.as_subclass(Drawn).renewed(tokens)

    def renewed(self, tokens: torch.Tensor) -> Drawn:
        """The same scores with other tokens, which nobody has taken yet."""
        self.tokens, self.taken = tokens, False
        return self

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
    """Whether arg max is called as in generate's loop."""
    return dim in (-1, 1) and not keepdim


def plain(scores: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The scores of all steps as ordinary tensors."""
    return tuple(step.as_subclass(torch.Tensor) for step in scores)


class FusedSampler(LogitsProcessor):
    """Draws one token per row at every step of one call of generate.

    chain: parameters, and processors that act on the filtered scores. options: seed, stream and backend. prompt:
    int64 [B, L], the ids before the first step. mask: [B, L], 0 for padding, or None. scores: whether the caller
    wants the scores as the warpers would return them.
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
        self.invalid = InvalidRowFlag()
        self.last: Drawn | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.finish()
        step = input_ids.shape[1] - self.prompt_length
        visible = scores
        if self.scores or self.chain.reshaped:
            text = self.text(input_ids)
            visible = filtered = filter_logits(scores, self.params, **text, backend=self.backend, on_invalid="mark")
            for processor in self.chain.after:
                visible = processor(input_ids, visible)
            if self.chain.reshaped:  # an invalid row stays invalid: `drawn` reports it with its step
                scores = visible.masked_fill(filtered.amax(-1, keepdim=True) == -torch.inf, -torch.inf)
        tokens = self.drawn(input_ids, scores, step)
        if self.scores or self.last is None:
            self.last = Drawn.of(visible, tokens)
        else:  # nobody looks at the scores, so those of the first step serve: a new view takes as long as an arg max
            self.last.renewed(tokens)
        return self.last

    def drawn(self, input_ids: torch.Tensor, scores: torch.Tensor, step: int) -> torch.Tensor:
        """The tokens of `samplers.sample`."""
        params, text = (PLAIN, {}) if self.chain.reshaped else (self.params, self.text(input_ids))
        keys: dict[str, Any] = dict(seed=self.seed, position=step, stream=self.stream, backend=self.backend)
        if scores.is_cuda:
            return self.invalid.record(sample(scores, params, on_invalid="mark", **keys, **text).tokens, step)
        try:
            return sample(scores, params, **keys, **text).tokens
        except InvalidLogits as error:
            raise InvalidLogits(error.rows, step) from None

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
        """After every step: check that the loop took the tokens, and that every row was valid."""
        if self.last is not None and not self.last.taken:
            raise RuntimeError(
                "transformers did not take the tokens that samplers.hf drew: this version of transformers chooses "
                "tokens in an unknown way; samplers.hf.detach(model) draws without samplers.hf"
            )
        self.invalid.check()


class FusedList(LogitsProcessorList):
    """generate's list: the processors that stay, then the fused call.

    transformers' own list inspects the signature of every processor at every step, which takes as long as a draw, and
    even an empty one takes microseconds.
    """

    def __init__(self, sampler: FusedSampler) -> None:
        super().__init__([*sampler.chain.before, sampler])
        self.before, self.sampler = LogitsProcessorList(sampler.chain.before), sampler

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        if self.before:
            scores = self.before(input_ids, scores, **kwargs)
        return self.sampler(input_ids, scores)


class InvalidRowFlag:
    """Finds invalid rows on a GPU without synchronising with it.

    The flags of a step are copied while the GPU works and are read one step later: by then generate itself has waited
    for that step to decide whether to stop. Until then an invalid row continues with token 0.
    """

    def __init__(self) -> None:
        self.pending: tuple[torch.Tensor, Any, int] | None = None

    def record(self, tokens: torch.Tensor, step: int) -> torch.Tensor:
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
    """Check a value against the number of rows, and move an array to the GPU once instead of at every step."""
    checked = integers(name, value, len(prompt))
    if isinstance(checked, np.ndarray) and prompt.is_cuda:
        return torch.from_numpy(checked.copy()).to(prompt.device)
    return checked
