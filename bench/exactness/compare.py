"""A backend beside the reference on generated rows, integer by integer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import samplers
from samplers import SamplingParams

INTEGERS = ("tokens", "weight", "total", "kept")
LOGARITHMS = ("logprobs", "model_logprobs", "entropy")
Row = Callable[[int, np.random.Generator], np.ndarray]

KINDS: dict[str, Row] = {
    "peaked": lambda v, rng: -2 * np.log(rng.permutation(v) + 1.0) + 0.1 * rng.standard_normal(v),
    "normal": lambda v, rng: 3 * rng.standard_normal(v),
    "flat": lambda v, rng: 1e-3 * rng.standard_normal(v),
    "tied": lambda v, rng: np.round(2 * rng.standard_normal(v)),
    "equal": lambda v, rng: np.full(v, rng.standard_normal()),
    "one survivor": lambda v, rng: np.where(np.arange(v) == rng.integers(v), 1.0, -np.inf),
    "riddled": lambda v, rng: np.where(rng.random(v) < 0.5, -np.inf, rng.standard_normal(v)),
    "zeros": lambda v, rng: rng.choice([0.0, -0.0, 1e-45, -1e-45], v),
    "subnormal": lambda v, rng: 1e-39 * rng.standard_normal(v),
    "huge": lambda v, rng: 1e38 * rng.standard_normal(v),
    "last bits": lambda v, rng: np.nextafter(np.float32(5), np.float32(9)) + 1e-6 * rng.integers(-3, 3, v),
    "ladder": lambda v, rng: -0.01 * rng.permutation(v),
}
DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Rows:
    """A batch of generated rows with parameters of their own."""

    logits: torch.Tensor
    params: list[SamplingParams]
    arguments: dict[str, Any]


def check(
    backend: str,
    rows: int,
    seed: int = 0,
    largest: int = 1 << 18,
    device: str = "cpu",
    full_every: int = 1,
    busy: float = 1.0,
) -> int:
    """Compares at least `rows` rows, in every `full_every`-th batch with details and kept sets; returns how many.

    busy: how much of the usual chance each filter has to be on; the interpreter's time is in its filters.

    AssertionError at the first that differs: totals and kept sets show what tokens alone would hide.
    """
    compared = 0
    for number, batch in enumerate(generated(np.random.default_rng(seed), largest, busy)):
        is_full = number % full_every == 0
        compare(backend, batch, device, details=is_full)
        if is_full:
            compare_kept(backend, batch, device)
        compared += len(batch.logits)
        if compared >= rows:
            break
    return compared


def compare(backend: str, rows: Rows, device: str = "cpu", details: bool = True) -> None:
    """Everything that `sample` gives, beside the reference's."""
    on_device, packed = rows.logits.to(device), samplers.pack(rows.params)
    call = dict(on_invalid="mark", details=details, **rows.arguments)
    theirs = samplers.sample(rows.logits, packed, backend="reference", **call)
    for way in ways(backend):
        ours = samplers.sample(on_device, packed, backend=backend, **call)
        for name in INTEGERS:
            a, b = getattr(ours, name).cpu(), getattr(theirs, name)
            assert torch.equal(a, b), f"{name} by {way}: {a} is not {b} for {rows.params} of {rows.logits.dtype}"
        for name in LOGARITHMS if details else LOGARITHMS[:1]:
            a, b = getattr(ours, name).cpu().numpy(), getattr(theirs, name).numpy()
            np.testing.assert_allclose(
                a, b, rtol=2e-7, atol=0 if name == "logprobs" else 1e-6, err_msg=f"{name} by {way}"
            )


def compare_kept(backend: str, rows: Rows, device: str = "cpu") -> None:
    """What `filter_logits` gives, or its refusal, beside the reference's."""
    call = {name: value for name, value in rows.arguments.items() if name in ("history", "history_start", "allowed")}
    theirs = filtered(rows.logits, rows.params, backend="reference", **call)
    for way in ways(backend):
        ours = filtered(rows.logits.to(device), rows.params, backend=backend, **call).cpu()
        assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32)), f"kept set by {way} of {rows.params}"


def ways(backend: str) -> Iterator[str]:
    """The name of the backend; of the C++ one each instruction set in turn, which it uses meanwhile."""
    if backend != "native":
        yield backend
        return
    from samplers import _native

    try:
        for isa in _native.available_isas():
            _native.use_isa(isa)
            yield isa
    finally:
        _native.use_isa("auto")


def filtered(logits: torch.Tensor, params: list[SamplingParams], **call: Any) -> torch.Tensor:
    try:
        return samplers.filter_logits(logits, params, **call)
    except samplers.InvalidLogits as error:
        return torch.tensor(error.rows)


def generated(rng: np.random.Generator, largest: int, busy: float = 1.0) -> Iterator[Rows]:
    """Batches without end: small vocabularies mostly, now and then up to the largest."""
    while True:
        vocabulary = vocabulary_of(rng, largest)
        size = int(rng.integers(1, 33)) if vocabulary < 1000 else int(rng.integers(1, 4))
        rows = [KINDS[str(rng.choice(list(KINDS)))](vocabulary, rng) for _ in range(size)]
        with np.errstate(over="ignore"):
            x = torch.from_numpy(np.stack(rows).astype(np.float32))
        half = x.to(DTYPES[rng.integers(len(DTYPES))])
        x = half if torch.isfinite(half).any(-1).all() and not (half == torch.inf).any() else x
        yield Rows(x, [params(rng, vocabulary, busy) for _ in range(size)], arguments(rng, size, vocabulary))


def vocabulary_of(rng: np.random.Generator, largest: int) -> int:
    draw = rng.random()
    if draw < 0.9:
        return int(rng.integers(1, min(largest, 12 if draw < 0.2 else 300)))
    return int(rng.integers(1, min(largest, 9000))) if draw < 0.999 else int(rng.integers(1, largest + 1))


def params(rng: np.random.Generator, vocabulary: int, busy: float) -> SamplingParams:
    """Any mix of filters, each on in about a third of the rows, over its whole range."""

    def maybe(value: Any, off: Any, chance: float = 0.35) -> Any:
        return value if rng.random() < busy * chance else off

    return SamplingParams(
        temperature=maybe(0.0, float(10 ** (rng.uniform(-1.3, 1) if rng.random() < 0.8 else rng.uniform(-6, 6))), 0.05),
        top_k=maybe(int(rng.integers(1, 80)), 0),
        top_p=maybe(float(rng.choice([rng.random(), 0.9, 0.95, 0.0])), 1.0),
        min_p=maybe(float(10 ** rng.uniform(-4, 0)), 0.0),
        typical_p=maybe(float(rng.uniform(1e-6, 1)), 1.0, 0.25),
        epsilon_cutoff=maybe(float(10 ** rng.uniform(-8, -0.01)), 0.0, 0.25),
        eta_cutoff=maybe(float(10 ** rng.uniform(-8, -0.01)), 0.0, 0.25),
        repetition_penalty=maybe(float(rng.uniform(0.5, 2)), 1.0, 0.1),
        presence_penalty=maybe(float(rng.uniform(-1, 1)), 0.0, 0.1),
        frequency_penalty=maybe(float(rng.uniform(-1, 1)), 0.0, 0.1),
        logit_bias=maybe({int(rng.integers(vocabulary)): float(rng.choice([rng.normal(), -np.inf]))}, None, 0.1),
        min_tokens_to_keep=maybe(int(rng.integers(1, 20)), 1, 0.2),
    )


def arguments(rng: np.random.Generator, size: int, vocabulary: int) -> dict[str, Any]:
    """Seeds, and now and then a history and a mask."""
    numbers = {name: rng.integers(-(2**63), 2**63, size, endpoint=False) for name in ("seed", "position", "stream")}
    given: dict[str, Any] = dict(numbers)
    if rng.random() < 0.3:
        given["history"] = [rng.integers(-1, vocabulary + 2, rng.integers(0, 12)).tolist() for _ in range(size)]
        given["history_start"] = rng.integers(0, 14, size)
    if rng.random() < 0.2:
        given["allowed"] = rng.random((size, vocabulary)) < 0.9
    return given
