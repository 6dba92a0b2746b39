"""Compares a backend with the reference on generated rows, integer by integer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import samplers
from samplers import SamplingParams
from samplers.identity.rows import KINDS, row
from samplers.reference.filters import FILTERS, Filter

INTEGERS = ("tokens", "weight", "total", "kept")
LOGARITHMS = ("logprobs", "model_logprobs", "entropy")
DTYPES = (torch.float32, torch.float32, torch.float16, torch.bfloat16)


@dataclass
class Generated:
    """A batch of rows with parameters for each, and the other arguments of `sample`."""

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
    """Compares at least `rows` rows, in every `full_every`-th batch with details and kept sets; returns their number.

    busy: the chance of each filter to be on, as a part of the usual one; the interpreter spends its time in filters.

    Raises: AssertionError at the first difference; totals and kept sets show more than tokens alone.
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


def compare(backend: str, rows: Generated, device: str = "cpu", details: bool = True) -> None:
    """The whole output of `sample` must be the reference's."""
    on_device, packed = rows.logits.to(device), samplers.pack(rows.params)
    call = dict(on_invalid="mark", details=details, **rows.arguments)
    exact = samplers.sample(rows.logits, packed, backend="reference", **call)
    for way in ways(backend):
        ours = samplers.sample(on_device, packed, backend=backend, **call)
        for name in INTEGERS:
            a, b = getattr(ours, name).cpu(), getattr(exact, name)
            assert torch.equal(a, b), f"{name} by {way}: {a} is not {b} for {rows.params} of {rows.logits.dtype}"
        for name in LOGARITHMS if details else LOGARITHMS[:1]:
            a, b = getattr(ours, name).cpu().numpy(), getattr(exact, name).numpy()
            atol = 0 if name == "logprobs" else 1e-6
            np.testing.assert_allclose(a, b, rtol=2e-7, atol=atol, err_msg=f"{name} by {way}")


def compare_kept(backend: str, rows: Generated, device: str = "cpu") -> None:
    """The output of `filter_logits`, or its refusal, must be the reference's."""
    call = {name: value for name, value in rows.arguments.items() if name in ("history", "history_start", "allowed")}
    exact = filtered(rows.logits, rows.params, backend="reference", **call)
    for way in ways(backend):
        ours = filtered(rows.logits.to(device), rows.params, backend=backend, **call).cpu()
        assert torch.equal(ours.view(torch.int32), exact.view(torch.int32)), f"kept set by {way} of {rows.params}"


def ways(backend: str) -> Iterator[str]:
    """The name of the backend; for the C++ one, each instruction set, which it uses meanwhile."""
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


def generated(rng: np.random.Generator, largest: int, busy: float = 1.0) -> Iterator[Generated]:
    """An endless series of batches: small vocabularies mostly, now and then up to the largest."""
    while True:
        vocabulary = vocabulary_of(rng, largest)
        size = int(rng.integers(1, 33)) if vocabulary < 1000 else int(rng.integers(1, 4))
        x = torch.from_numpy(np.stack([row(str(rng.choice(list(KINDS))), vocabulary, rng) for _ in range(size)]))
        half = x.to(DTYPES[rng.integers(len(DTYPES))])
        x = half if torch.isfinite(half).any(-1).all() and not (half == torch.inf).any() else x
        yield Generated(x, [params(rng, vocabulary, busy) for _ in range(size)], arguments(rng, size, vocabulary))


def vocabulary_of(rng: np.random.Generator, largest: int) -> int:
    draw = rng.random()
    if draw < 0.9:
        return int(rng.integers(1, min(largest, 12 if draw < 0.2 else 300)))
    return int(rng.integers(1, min(largest, 9000))) if draw < 0.999 else int(rng.integers(1, largest + 1))


def params(rng: np.random.Generator, vocabulary: int, busy: float) -> SamplingParams:
    """Any mix of filters, each on in about a third of the rows, over its whole range."""

    def maybe(value: Any, off: Any, chance: float) -> Any:
        return value if rng.random() < busy * chance else off

    return SamplingParams(
        temperature=maybe(0.0, float(10 ** (rng.uniform(-1.3, 1) if rng.random() < 0.8 else rng.uniform(-6, 6))), 0.05),
        **{f.name: maybe(filter_value(f, rng), f.off, 0.3) for f in FILTERS},
        repetition_penalty=maybe(float(rng.uniform(0.5, 2)), 1.0, 0.1),
        presence_penalty=maybe(float(rng.uniform(-1, 1)), 0.0, 0.1),
        frequency_penalty=maybe(float(rng.uniform(-1, 1)), 0.0, 0.1),
        logit_bias=maybe({int(rng.integers(vocabulary)): float(rng.choice([rng.normal(), -np.inf]))}, None, 0.1),
        min_tokens_to_keep=maybe(int(rng.integers(1, 20)), 1, 0.2),
    )


def filter_value(f: Filter, rng: np.random.Generator) -> float:
    """A value over the whole range of a filter, or one that users choose."""
    if f.is_integer:
        return int(rng.integers(1, 80))
    value = float(rng.choice([rng.random(), 0.9, 0.95, 0.0]) if f.off else 10 ** rng.uniform(-8, -0.01))
    return value if value in f.accepts else 1e-6


def arguments(rng: np.random.Generator, size: int, vocabulary: int) -> dict[str, Any]:
    """Seeds, and now and then a history and a mask."""
    numbers = {name: rng.integers(-(2**63), 2**63, size, endpoint=False) for name in ("seed", "position", "stream")}
    given: dict[str, Any] = dict(numbers)
    if rng.random() < 0.3:
        given["history"] = [rng.integers(-1, vocabulary + 2, rng.integers(0, 12)).tolist() for _ in range(size)]
        given["history_start"] = rng.integers(0, 14, size)
    if rng.random() < 0.2:
        given["allowed"] = rng.random((size, vocabulary)) < 0.9
    elif rng.random() < 0.1:
        given["allowed"] = rng.integers(-(2**31), 2**31, (size, -(-vocabulary // 32)), np.int32)  # bits
    return given
