"""The public functions: they check the arguments, call a backend, and return the caller's type of array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch

from samplers.backends import implementation, native
from samplers.batch import Array, Batch, History, Integers, Params, to_numpy
from samplers.params import PLAIN

P = ParamSpec("P")
R = TypeVar("R")
ON_INVALID = ("raise", "mark")
ON_CPU = ("auto", "native")  # backends that mean C++ for a tensor on the CPU


class InvalidLogits(ValueError):
    """A row holds a NaN, +inf, or nothing above -inf. `rows` lists the rows, `step` is the decode step if known."""

    def __init__(self, rows: list[int], step: int | None = None) -> None:
        self.rows, self.step = rows, step
        named = ", ".join(map(str, rows[:10])) + (f" and {len(rows) - 10} more" if len(rows) > 10 else "")
        super().__init__(
            f"logits must hold no NaN, no +inf and at least one value above -inf in each row (after bias, mask and "
            f"penalties); invalid: row {named}" + ("" if step is None else f" at step {step}")
        )

    def __reduce__(self) -> tuple[type[InvalidLogits], tuple[list[int], int | None]]:
        return type(self), (self.rows, self.step)


class SampleOutput(NamedTuple):
    """The result of a draw: tensors on the logits' device, or NumPy arrays for NumPy logits; all of shape (B,).

    tokens: int64 ids. weight, total: int64; weight / total is the token's probability in the final distribution.
    kept: int32, the number of tokens that the filters kept. logprobs: float32, ln(weight / total).
    model_logprobs: float32, under softmax of the untouched logits. entropy: float32, of the final distribution in nats.
    Both are None unless details=True.
    """

    tokens: Any
    weight: Any
    total: Any
    kept: Any
    logprobs: Any
    model_logprobs: Any = None
    entropy: Any = None


in_one_step = native.one_step(SampleOutput)


def between_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """torch.compile cannot trace the engine, so it calls the function between two graphs."""
    return torch.compiler.disable(function) if torch.compiler.is_compiling() else function


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator: every call is `between_graphs`."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return between_graphs(function)(*args, **kwargs)

    return call


def sample(
    logits: Array,
    params: Params = None,
    *,
    seed: Integers,
    position: Integers = 0,
    stream: Integers | None = None,
    history: History = None,
    history_start: Integers = 0,
    allowed: Array | None = None,
    details: bool = False,
    backend: str = "auto",
    on_invalid: str = "raise",
) -> SampleOutput:
    """Draw one token per row; the same logits, parameters, seed, stream and position give the same token everywhere.

    Args:
        logits: (B, V) or (V,), float32, float16 or bfloat16, torch or NumPy, 1 <= V <= 2^20. They are only read, and no
            other thread may write them during the call.
        params: SamplingParams, a sequence of B of them, or the result of `pack`; None leaves the distribution as it is.
        seed, position, stream: int or int64 (B,), taken mod 2^64. position is the decode step; stream distinguishes
            requests (default: the row number).
        history: ids for the penalties, (B, L) padded with -1, or a list of sequences. history_start: int or (B,), the
            index in it at which the generated part begins.
        allowed: bool (B, V) or (V,); all other tokens get no mass. Or bits, as grammar libraries fill them: int32
            (B, W) or (W,), W = ceil(V / 32); token v is bit v mod 32 of word v div 32, and bits beyond V are ignored.
        details: also return model_logprobs and entropy.
        backend: "auto", "reference", "native" or "triton".
        on_invalid: "raise", or "mark": an invalid row gets token -1, integers 0 and logprob NaN; the others are drawn.
            On a GPU, "raise" waits for the result, and "mark" waits for nothing.

    Raises: InvalidLogits; ValueError or TypeError naming the argument, what it accepts and what it got;
        RuntimeError for a backend that can't run here.
    Source: inverse transform sampling on integer weights; `samplers/reference/` is the definition.

    >>> from samplers import SamplingParams, textbook
    >>> logits = np.log(textbook.example()).astype(np.float32)
    >>> out = sample(logits, SamplingParams(top_p=0.8), seed=7)
    >>> int(out.tokens[0]), int(out.kept[0]), round(float(out.weight[0] / out.total[0]), 3)
    (3, 6, 0.118)
    """
    is_plain = stream is None and history is None and details is False
    is_plain = is_plain and type(history_start) is int and history_start == 0
    if is_plain and backend in ON_CPU and on_invalid in ON_INVALID and not torch.compiler.is_dynamo_compiling():
        out = in_one_step(logits, PLAIN if params is None else params, seed, position, allowed)
        if out is not None:
            return out
    return between_graphs(in_general)(
        logits, params, seed, position, stream, history, history_start, allowed, details, backend, on_invalid
    )


def in_general(
    logits: Array,
    params: Params,
    seed: Integers,
    position: Integers,
    stream: Integers | None,
    history: History,
    history_start: Integers,
    allowed: Array | None,
    details: bool,
    backend: str,
    on_invalid: str,
) -> SampleOutput:
    """`sample` for any arguments."""
    check_details(details)
    raises = raises_on_invalid(on_invalid)
    batch = Batch(logits, params, history, history_start, allowed, seed, position, stream)
    columns = implementation(backend, batch.on_gpu).sample(batch, details)
    if raises and not columns.all_valid:
        refuse_invalid(columns.tokens >= 0)
    return SampleOutput(*batch.outputs(columns[:7]))


@untraced
def filter_logits(
    logits: Array,
    params: Params = None,
    *,
    history: History = None,
    history_start: Integers = 0,
    allowed: Array | None = None,
    backend: str = "auto",
    on_invalid: str = "raise",
) -> Any:
    """The distribution that `sample` draws from, as logits: x / T where kept, -inf elsewhere.

    Arguments and errors as in `sample`; on_invalid="mark" fills an invalid row with -inf. Returns: a new float32
    (B, V), torch or NumPy like the logits. At T = 0 the kept logit is not divided. A quotient beyond float32 is clamped
    to the greatest finite number, so kept tokens stay above -inf.

    >>> from samplers import SamplingParams
    >>> filter_logits(np.float32([1, 3, 2]), SamplingParams(top_k=2, temperature=2.0))
    array([[-inf,  1.5,  1. ]], dtype=float32)
    """
    raises = raises_on_invalid(on_invalid)
    batch = Batch(logits, params, history, history_start, allowed)
    filtered, valid = implementation(backend, batch.on_gpu).filter_logits(batch)
    if raises:
        refuse_invalid(valid)
    return batch.outputs([filtered])[0]


def check_details(details: object) -> None:
    if not isinstance(details, bool):
        raise TypeError(f"details must be True or False, got {details!r}")


def raises_on_invalid(on_invalid: str) -> bool:
    if on_invalid not in ON_INVALID:
        raise ValueError(f"on_invalid must be 'raise' or 'mark', got {on_invalid!r}")
    return on_invalid == "raise"


def refuse_invalid(valid: Array) -> None:
    if not valid.all():
        raise InvalidLogits(np.flatnonzero(~to_numpy("valid", valid)).tolist())
