"""The suite passes right samplers and fails broken ones, each at the check that names its defect.

Oracles: samplers broken on purpose, around an inverse transform in float64. Seeds are fixed, so a test that passes
once passes always.
"""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import samplers
from samplers import SamplingParams, conformance, textbook
from samplers.conformance import Finding, Sampler
from samplers.conformance_cases import final_distribution

DRAWS = {"native": 10_000, "reference": 500, "triton": 50_000}
CHECKS = {"counts", "chi_square", "g_test", "tail", "zero_probability", "masks", "greedy"}


def failed(findings: list[Finding]) -> set[str]:
    return {finding.check for finding in findings if finding.passed is False}


@pytest.mark.parametrize("backend", ["native", pytest.param("reference", marks=pytest.mark.exhaustive), "triton"])
def test_our_backends_pass(backend: str):
    if samplers.backends()[backend] != "ok":
        pytest.skip(f"{backend}: {samplers.backends()[backend]}")
    device = "cuda" if backend == "triton" else "cpu"
    findings = conformance.run(conformance.alea(backend), DRAWS[backend], device=device)
    assert {finding.check for finding in findings} == CHECKS
    assert all(finding.passed for finding in findings), conformance.report(findings)


@pytest.mark.exhaustive
def test_triton_in_its_interpreter():
    """At 30 to 200 ms a row it gets few rows; that it agrees with the reference bit by bit is tested elsewhere."""
    if samplers.backends()["triton"] != "interpreter":
        pytest.skip(f"triton: {samplers.backends()['triton']}")
    finding = conformance.chi_square(conformance.Trial(conformance.alea("triton"), draws=2))
    assert finding.passed and "not supported" not in finding.message, finding.message


# A right sampler, and ways to break it: in its distribution, its search, its random numbers, its greedy choice.


def inverse(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.minimum(np.searchsorted(np.cumsum(p), u, side="right"), np.flatnonzero(p)[-1])


def independent(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(rows)


def first(x: np.ndarray) -> np.ndarray:
    return x.argmax(1)


def right(
    distribution: Callable[[np.ndarray, SamplingParams], np.ndarray] = final_distribution,
    search: Callable[[np.ndarray, np.ndarray], np.ndarray] = inverse,
    numbers: Callable[[int, int], np.ndarray] = independent,
    greedy: Callable[[np.ndarray], np.ndarray] = first,
) -> Sampler:
    known: dict[tuple[bytes, SamplingParams], np.ndarray] = {}

    def of(x: np.ndarray, params: SamplingParams) -> np.ndarray:
        key = x.tobytes(), params
        if key not in known:
            known[key] = distribution(x, params)
        return known[key]

    def sampler(logits: torch.Tensor, params: SamplingParams, seed: int) -> np.ndarray:
        x, u = logits.numpy(), numbers(len(logits), seed)
        if params.temperature == 0:
            return greedy(x)
        if np.array_equal(x[0], x[-1]):  # all rows of such a batch are equal
            return search(of(x[0], params), u)
        return np.concatenate([search(of(row, params), u[i : i + 1]) for i, row in enumerate(x)])

    return sampler


def test_a_right_sampler_passes():
    findings = conformance.run(right())
    assert all(finding.passed for finding in findings), conformance.report(findings)


def hotter(x: np.ndarray, params: SamplingParams) -> np.ndarray:
    return final_distribution(x, replace(params, temperature=1.02 * params.temperature))


def nucleus(more: int) -> Callable[[np.ndarray, SamplingParams], np.ndarray]:
    """Top-p with so many tokens too many."""

    def distribution(x: np.ndarray, params: SamplingParams) -> np.ndarray:
        p = final_distribution(x, params)
        if params.top_p == 1:
            return p
        unfiltered = textbook.softmax(x, params.temperature)
        keep = textbook.descending(unfiltered)[: max(1, np.count_nonzero(p) + more)]
        return textbook.renormalise(unfiltered, np.isin(np.arange(len(p)), keep))

    return distribution


def unnormalised(x: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The mass that the filters cut is left out of the sum, so that u beyond it finds the last token."""
    return np.where(final_distribution(x, params) > 0, textbook.softmax(x, params.temperature), 0)


def without_tail(x: np.ndarray, params: SamplingParams) -> np.ndarray:
    p = final_distribution(x, params)
    return textbook.renormalise(p, p >= 0.99e-5)


def leaky(x: np.ndarray, params: SamplingParams) -> np.ndarray:
    """A token at -inf comes out once in 20,000 draws."""
    p = final_distribution(x, params)
    masked = np.flatnonzero(x == -np.inf)
    if len(masked):
        p = p * (1 - 1 / 20_000)
        p[masked[0]] = 1 / 20_000
    return p


def in_float16(p: np.ndarray, u: np.ndarray) -> np.ndarray:
    """A running sum in float16 misses rare tokens; what it lacks falls to the last one."""
    running = np.cumsum(p.astype(np.float16), dtype=np.float16)
    return np.minimum(np.searchsorted(running, u, side="right"), np.flatnonzero(p)[-1])


DISTRIBUTION = {"chi_square", "g_test"}
BROKEN = {
    "temperature 2 % off": (right(hotter), DISTRIBUTION | {"tail"}),
    "top-p, one token too many": (right(nucleus(1)), {"masks"}),
    "top-p, one token too few": (right(nucleus(-1)), DISTRIBUTION | {"masks"}),
    "not renormalised": (right(unnormalised), DISTRIBUTION),
    "nothing below 1e-5": (right(without_tail), {"tail"}),
    "-inf once in 20,000": (right(leaky), {"zero_probability"}),
    "float16 sums": (right(search=in_float16), DISTRIBUTION | {"tail"}),
    "one number for all rows": (right(numbers=lambda rows, seed: np.full(rows, independent(1, seed))), {"counts"}),
    "rows in pairs": (right(numbers=lambda rows, seed: independent(rows, seed).repeat(2)[:rows]), {"counts"}),
    "seed unused": (right(numbers=lambda rows, seed: independent(rows, 0)), {"counts"}),
    "seed + row": (right(numbers=lambda rows, seed: independent(seed + rows, 1)[seed:]), {"counts"}),
    "the last tie": (right(greedy=lambda x: x.shape[1] - 1 - x[:, ::-1].argmax(1)), {"greedy"}),
}


ONE_A_CHECK = (
    "temperature 2 % off",
    "top-p, one token too many",
    "-inf once in 20,000",
    "rows in pairs",
    "the last tie",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] * (name not in ONE_A_CHECK)) for name in BROKEN]
)
def test_a_broken_sampler_fails_where_it_is_broken(name: str):
    sampler, checks = BROKEN[name]
    findings = conformance.run(sampler)
    assert failed(findings) == checks, conformance.report(findings)


FORMS = {
    "a column": (lambda tokens: tokens[:, None], r"tokens must have shape \(1,\), got \(1, 1\)"),
    "floats": (lambda tokens: tokens + 0.0, "tokens must be integers, got float64"),
    "out of range": (lambda tokens: tokens + 1, r"tokens must be in 0 .. 0, got 1 to 1"),
    "nothing": (lambda tokens: None, r"tokens must have shape \(1,\), got \(\)"),
    "ragged": (lambda tokens: [[0], [0, 1]], "tokens must be 1 integers"),
}


@pytest.mark.parametrize("name", FORMS)
def test_malformed_tokens(name: str):
    change, message = FORMS[name]
    first, *others = conformance.run(lambda *arguments: change(right()(*arguments)), draws=100)
    assert first.check == "counts" and first.passed is False
    assert re.search(message, first.message)
    assert all(finding.passed is None for finding in others)


def test_lists_and_tensors_will_do():
    for form in (list, torch.as_tensor):
        assert conformance.counts(conformance.Trial(lambda *a, form=form: form(right()(*a)), draws=100)).passed


def test_rows_must_not_be_mixed_up():
    finding = conformance.counts(conformance.Trial(lambda x, p, seed: right()(x.roll(1, 0), p, seed), draws=100))
    assert finding.passed is False and "own row: 500 of 500" in finding.message


def test_logits_must_not_be_written():
    def sampler(logits: torch.Tensor, params: SamplingParams, seed: int) -> np.ndarray:
        return right()(logits.div_(params.temperature or 1), replace(params, temperature=1.0), seed)

    finding = conformance.counts(conformance.Trial(sampler, draws=100))
    assert finding.passed is False and "the sampler wrote into its logits" in finding.message


def test_what_a_sampler_refuses_is_not_judged():
    def sampler(logits: torch.Tensor, params: SamplingParams, seed: int) -> np.ndarray:
        if params.temperature == 0 or params.typical_p < 1:
            raise NotImplementedError("only what everybody has")
        return right()(logits, params, seed)

    findings = {finding.check: finding for finding in conformance.run(sampler, draws=100)}
    assert findings["greedy"].passed is None
    assert findings["greedy"].message == "not supported: T=0 (NotImplementedError: only what everybody has)"
    assert findings["masks"].passed and "not supported: typical_p=0.3 and 3 more" in findings["masks"].message


def test_draws_must_be_a_number_of_draws():
    with pytest.raises(ValueError, match="draws must be an integer >= 1, got 0"):
        conformance.run(right(), draws=0)
