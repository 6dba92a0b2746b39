"""Oracle: golden rows worked out by big-integer arithmetic, and `samplers.sample` on whole rows. Integers exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from bench.processes import in_processes
from samplers import InvalidLogits, SamplingParams, sample, sharded
from samplers.identity.rows import KINDS, row
from samplers.reference.filters import FILTERS
from samplers.sharded import filters
from samplers.sharded.collectives import Collectives
from samplers.sharded.draw import drawn
from tests.samplers.golden import read

INTEGERS = ("tokens", "weight", "total", "kept")
FLOATS = ("logprobs", "model_logprobs", "entropy")
EXHAUSTIVE = pytest.mark.exhaustive
GROUPS = [3, pytest.param(2, marks=EXHAUSTIVE), pytest.param(5, marks=EXHAUSTIVE)]


@dataclass
class Call:
    """Arguments for whole rows, and where the vocabulary is cut: the ends of all parts but the last."""

    logits: Any
    params: Any
    cuts: list[int]
    keys: dict[str, Any] = field(default_factory=lambda: dict(seed=7))
    text: dict[str, Any] = field(default_factory=dict)  # history, history_start
    allowed: Any = None

    def whole(self) -> list[list[float]]:
        changes = self.text | {"allowed": self.allowed}
        out = sample(self.logits, self.params, **self.keys, **changes, details=True, on_invalid="mark")
        return columns(out)

    def part(self, rank: int, details: bool = True, invalid: str = "mark") -> tuple[list[list[float]], int, int]:
        """What one process gets: the columns, and how many messages and bytes it has given."""
        begin, end = ([0, *self.cuts][rank], [*self.cuts, self.logits.shape[-1]][rank])
        allowed = None if self.allowed is None else self.allowed[..., begin:end]
        together = Collectives()
        logits = self.logits[..., begin:end]
        keys = dict(position=0, stream=None) | self.keys
        text = (self.text.get("history"), self.text.get("history_start", 0))
        out = drawn(together, logits, self.params, begin, keys, *text, allowed, details, "auto", invalid)
        return (columns(out), together.count, together.bytes_gathered + together.bytes_summed)


def columns(out: Any) -> list[list[float]]:
    """A row's integers, then its floats; [] for those that nobody asked for."""
    return [np.asarray(getattr(out, name)).tolist() for name in INTEGERS + FLOATS if getattr(out, name) is not None]


def parts_of(rank: int, calls: list[Call]) -> list[Any]:
    return [call.part(rank) for call in calls]


def assert_same(calls: list[Call], size: int) -> list[tuple[int, int]]:
    """Every process gets what whole rows give. Returns: messages and bytes of a process, call by call."""
    by_process = in_processes(size, parts_of, calls)
    for number, call in enumerate(calls):
        whole, found = call.whole(), [process[number] for process in by_process]
        for ours, count, bytes_given in found:
            assert ours[: len(INTEGERS)] == whole[: len(INTEGERS)], call
            np.testing.assert_allclose(ours[len(INTEGERS) :], whole[len(INTEGERS) :], atol=2e-6, err_msg=str(call))
            assert (count, bytes_given) == found[0][1:]
    return [call[1:] for call in by_process[0]]


@pytest.mark.parametrize(("size", "step"), [(3, 4), *(pytest.param(size, 1, marks=EXHAUSTIVE) for size in (2, 3, 5))])
def test_golden_rows(size: int, step: int):
    rng, calls, expected = np.random.default_rng(size), [], []
    for golden in (read("rows") + read("penalties") + read("clamped"))[::step]:
        text = dict(golden.changes)
        cuts = sorted(rng.integers(0, len(golden.logits) + 1, size - 1).tolist())
        calls.append(Call(golden.logits[None], golden.params, cuts, golden.seeds, text, text.pop("allowed", None)))
        expected.append(golden.drawn)
    for process in in_processes(size, parts_of, calls):
        assert [tuple(column[0] for column in found[: len(INTEGERS)]) for found, _, _ in process] == expected


@pytest.mark.parametrize("size", GROUPS)
@pytest.mark.parametrize(("count", "batch"), [(40, 8), pytest.param(210, 32, marks=EXHAUSTIVE)])
def test_generated_rows(size: int, count: int, batch: int):
    """210 calls of 32 rows with 2, 3 and 5 processes are 20,160 rows."""
    assert_same(list(generated(count, batch, size)), size)


def generated(count: int, batch: int, size: int) -> Iterator[Call]:
    rng, kinds = np.random.default_rng([count, size]), list(KINDS)
    for _ in range(count):
        v = int(rng.choice([1, 2, 3, 7, 40, 300, 1000, 5000]))
        logits = np.stack([row(str(rng.choice(kinds)), v, rng) for _ in range(batch)])
        if rng.random() < 0.1:
            logits[rng.integers(batch), rng.integers(v)] = rng.choice([np.nan, np.inf])
        if rng.random() < 0.05:
            logits[rng.integers(batch)] = -np.inf
        params = [random_params(rng, v) for _ in range(batch)]
        text = dict(history=rng.integers(-1, v + 2, (batch, 6)), history_start=2) if rng.random() < 0.3 else {}
        allowed = rng.random((batch, v)) < 0.7 if rng.random() < 0.2 else None
        cuts = sorted(rng.integers(0, v + 1, size - 1).tolist())
        keys = dict(seed=int(rng.integers(2**40)), position=3)
        yield Call(torch.from_numpy(logits), params, cuts, keys, text, allowed)


def random_params(rng: np.random.Generator, v: int) -> SamplingParams:
    choices: dict[str, tuple[float, list[float]]] = {  # how often, and what
        "top_k": (0.3, [1, 5, 50, 2000]),
        "top_p": (0.4, [0.01, 0.5, 0.9, 0.999, 0.0]),
        "min_p": (0.2, [0.01, 0.3, 1.0]),
        "typical_p": (0.2, [0.2, 0.9]),
        "epsilon_cutoff": (0.2, [0.001, 0.01, 0.3]),
        "eta_cutoff": (0.2, [0.001, 0.3]),
        "min_tokens_to_keep": (0.2, [2, 10]),
        "repetition_penalty": (0.2, [1.3]),
        "frequency_penalty": (0.2, [0.5]),
    }
    found = {name: rng.choice(values).item() for name, (often, values) in choices.items() if rng.random() < often}
    whole = {name: int(found[name]) for name in ("top_k", "min_tokens_to_keep") if name in found}
    params = SamplingParams(temperature=float(rng.choice([0, 0.3, 1, 1.7, 50])), **(found | whole))
    if rng.random() < 0.2:
        return replace(params, logit_bias={int(rng.integers(v)): float(rng.choice([3, -np.inf]))})
    return params


def a_row(kind: str, v: int = 3000) -> torch.Tensor:
    return torch.from_numpy(row(kind, v, np.random.default_rng(0)))[None]


def with_ties(*places: int) -> torch.Tensor:
    """A flat row whose greatest logit stands in 200 places, and in these."""
    x = a_row("flat")
    x[0, ::15] = 3.0
    x[0, list(places)] = 3.0
    return x


PEAKED, FLAT = a_row("peaked"), a_row("flat")
THIRDS = [1000, 2000]


ROWS = {"peaked": PEAKED, "flat": FLAT, "ties": with_ties()}
MESSAGES: list[tuple[str, dict[str, float], int]] = [
    ("peaked", dict(top_k=50, top_p=0.9), 1),
    ("flat", dict(top_k=50, top_p=0.9), 1),
    ("peaked", dict(temperature=0), 1),
    ("peaked", dict(min_p=0.01), 1),
    ("flat", dict(min_p=0.01), 3),
    ("peaked", {}, 3),
    ("peaked", dict(top_p=0.9), 2),
    ("peaked", dict(top_p=0.9, typical_p=0.9, min_p=0.02), 2),
    ("peaked", dict(epsilon_cutoff=0.001), 2),
    ("peaked", dict(eta_cutoff=0.001), 2),
    ("flat", dict(epsilon_cutoff=1e-5), 4),
    ("flat", dict(top_p=0.9), 9),
    ("peaked", dict(typical_p=0.9), 8),
    ("ties", dict(top_k=50), 7),  # four for the threshold, sums, token
    ("ties", dict(temperature=0), 8),
    ("flat", dict(top_k=1008), 1),
    ("flat", dict(top_k=1009), 7),
    ("peaked", dict(top_p=0.9, min_tokens_to_keep=2), 2),
    ("flat", dict(epsilon_cutoff=1e-5, min_tokens_to_keep=2), 8),
    ("flat", dict(min_p=0.01, min_tokens_to_keep=2), 8),
    ("flat", dict(top_p=0.9, min_tokens_to_keep=2), 14),
    ("flat", dict(top_p=0.9, min_p=0.02), 9),
    ("flat", dict(top_p=0.9, epsilon_cutoff=1e-5), 10),
    ("peaked", dict(typical_p=0.9, min_tokens_to_keep=2), 13),
]


def test_messages_of_a_row():
    """As docs/scale.md counts them. model_logprobs take two more, and entropy one where the list is not enough."""
    calls = [Call(ROWS[kind], SamplingParams(**options), THIRDS) for kind, options, _ in MESSAGES]
    with_details = [count for count, _ in assert_same(calls, 3)]
    for process in in_processes(3, messages_given, calls):
        assert process == [count for _, _, count in MESSAGES]
        assert {more - count for more, count in zip(with_details, process, strict=True)} == {2, 3}


def messages_given(rank: int, calls: list[Call]) -> list[int]:
    return [call.part(rank, details=False)[1] for call in calls]


def test_bytes_of_a_message():
    """top-k: 8 bytes for each of k + 16 logits, 4 for the next one, 8 for the place of the part."""
    call = Call(PEAKED, SamplingParams(top_k=50), THIRDS)
    assert in_processes(3, bytes_given, call) == [8 * 66 + 4 + 8] * 3


def bytes_given(rank: int, call: Call) -> int:
    return call.part(rank, details=False)[2]


SETS = [
    {},
    {"temperature": 0.0},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.5},
    {"typical_p": 0.8},
    {"epsilon_cutoff": 0.003},
    {"eta_cutoff": 0.003},
    {"min_tokens_to_keep": 5, "top_p": 0.0, "typical_p": 0.1},
    {"min_tokens_to_keep": 300, "epsilon_cutoff": 0.5},
]
PARAMS = [SamplingParams(**options) for options in SETS]


def test_rows_that_a_list_does_not_settle():
    rows_and_cuts = [
        (with_ties(999, 1000, 1999, 2000), THIRDS),  # at every edge of a part
        (torch.zeros(1, 3000), THIRDS),
        (torch.cat([a_row("peaked", 1000) + 60, a_row("flat", 2000)], 1), THIRDS),  # all mass in the first part
        (torch.cat([a_row("flat", 2000), a_row("peaked", 1000) + 60], 1), THIRDS),
        (PEAKED, [0, 3000]),  # empty parts
        (PEAKED, [3000, 3000]),
        (torch.cat([torch.full((1, 1000), -math.inf), a_row("peaked", 2000)], 1), THIRDS),
        (torch.where(torch.arange(3000) == 1500, 1.0, -math.inf)[None], THIRDS),
    ]
    assert_same([Call(x.expand(len(PARAMS), -1), PARAMS, cuts) for x, cuts in rows_and_cuts], 3)


LIMITS = {"top_k": 9, "top_p": 0.5, "min_p": 0.3, "typical_p": 0.5, "epsilon_cutoff": 0.01, "eta_cutoff": 0.01}


@pytest.mark.parametrize("least", [240, 241, 1008, 1009, 2999, 3000, 2**70])
def test_more_tokens_to_keep_than_a_list_has(least):
    """One row a call, so that no other row asks for a list."""
    options = [SamplingParams(**{name: limit}, min_tokens_to_keep=least) for name, limit in LIMITS.items()]
    assert_same([Call(x, params, THIRDS) for params in options for x in (PEAKED, FLAT)], 3)


def test_an_invalid_row_in_one_part_is_known_to_all():
    calls = []
    for value in (math.nan, math.inf):
        for place in (0, 1500, 2999):
            x = PEAKED.repeat(3, 1)
            x[1, place] = value
            calls.append(Call(x, SamplingParams(top_k=5), THIRDS))
    assert_same(calls, 3)
    assert in_processes(3, invalid_rows, calls) == [[[1]] * len(calls)] * 3


def invalid_rows(rank: int, calls: list[Call]) -> list[list[int]]:
    found = []
    for call in calls:
        with pytest.raises(InvalidLogits) as raised:
            call.part(rank, invalid="raise")
        found.append(raised.value.rows)
    return found


@pytest.mark.filterwarnings("error")
def test_arrays_that_are_read_only():
    x, allowed = PEAKED.numpy().copy(), np.arange(3000) % 3 > 0
    x.flags.writeable = allowed.flags.writeable = False
    assert_same([Call(x, SamplingParams(top_p=0.9), THIRDS), Call(x, None, THIRDS, allowed=allowed)], 3)


def test_other_types_of_logits():
    call = Call(PEAKED.numpy()[0], SamplingParams(top_p=0.9), THIRDS)
    half = Call(PEAKED.half(), SamplingParams(top_p=0.9), THIRDS)
    assert_same([call, half, replace(half, logits=PEAKED.bfloat16())], 3)


def test_masks_of_bits():
    rng = np.random.default_rng(0)
    bits = rng.integers(-(2**31), 2**31, (1, 96), dtype=np.int64).astype(np.int32)
    x = a_row("peaked", 96 * 32)
    assert in_processes(2, masked, x, bits) == [int(sample(x, None, seed=7, allowed=bits).tokens[0])] * 2


def masked(rank: int, logits: torch.Tensor, bits: np.ndarray) -> int:
    words = slice(0, 40) if rank == 0 else slice(40, 96)
    part = logits[:, words.start * 32 : words.stop * 32]
    out = sharded.sample(part, seed=7, vocab_start=words.start * 32, allowed=bits[:, words])
    return int(out.tokens[0])


def test_parts_in_any_order_and_overlaps():
    assert in_processes(2, reversed_parts, PEAKED) == [int(sample(PEAKED, None, seed=7).tokens[0])] * 2


def reversed_parts(rank: int, logits: torch.Tensor) -> int:
    parts = [(2000, logits[:, 2000:]), (0, logits[:, :2000])]
    start, part = parts[rank]
    with pytest.raises(ValueError, match="must not overlap"):
        sharded.sample(part, seed=7, vocab_start=0)
    with pytest.raises(ValueError, match="vocab_start must be an integer >= 0, got -1"):
        sharded.sample(part, seed=7, vocab_start=-1)
    with pytest.raises(ValueError, match="a token id must be < 3000, got 5000"):
        sharded.sample(part, SamplingParams(logit_bias={5000: 1.0}), seed=7, vocab_start=start)
    with pytest.raises(ValueError, match="1 to 1048576 tokens in all processes together, got 0"):
        sharded.sample(part[:, :0], seed=7)
    for far in (2**20, 2**31, 2**32, 2**70):
        with pytest.raises(ValueError, match="1 to 1048576 tokens in all processes together"):
            sharded.sample(part, seed=7, vocab_start=far if rank == 0 else start)
    return int(sharded.sample(part, seed=7, vocab_start=start).tokens[0])


def test_groups_of_some_processes():
    """The second group has its processes in another order than the vocabulary."""
    assert in_processes(3, in_two_groups, PEAKED) == [[True], [True], [True, True]]


def in_two_groups(rank: int, logits: torch.Tensor) -> list[bool]:
    params, found = [SamplingParams(top_p=0.9), SamplingParams(typical_p=0.9)], []
    for first, second in ((0, 2), (2, 1)):
        group = dist.new_group([first, second])
        if rank in (first, second):
            begin, end = (0, 1234) if rank == first else (1234, 3000)
            x = logits.expand(2, -1)
            out = sharded.sample(x[:, begin:end], params, group=group, seed=7, vocab_start=begin)
            found.append(columns(out)[:4] == columns(sample(x, params, seed=7))[:4])
    return found


@pytest.mark.parametrize("options", [{"details": 1}, {"backend": "other"}, {"on_invalid": "other"}])
def test_options_are_refused_as_by_sample(options):
    """Also a backend that no row needs."""
    with pytest.raises((TypeError, ValueError)) as expected:
        sample(PEAKED, seed=7, **options)
    assert in_processes(2, refused, options) == [str(expected.value)] * 2


def refused(rank: int, options: dict[str, Any]) -> str:
    with pytest.raises((TypeError, ValueError)) as raised:
        sharded.sample(PEAKED[:, :5], seed=7, vocab_start=5 * rank, **options)
    return str(raised.value)


def test_no_rows():
    assert in_processes(2, no_rows) == [[0] * 7] * 2


def no_rows(rank: int) -> list[int]:
    out = sharded.sample(torch.zeros(0, 5), seed=7, vocab_start=5 * rank, details=True)
    return [len(column) for column in out]


def test_without_a_group():
    with pytest.raises(RuntimeError, match=r"samplers\.sharded needs torch\.distributed"):
        sharded.sample(PEAKED, seed=7)


def test_every_filter_is_there():
    for f in FILTERS:
        assert callable(getattr(filters, f.concept))
