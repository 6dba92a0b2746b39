"""The call in one step from Python to C++ (csrc/one_step.h).

Oracle: the general path, which serves every call that the one step declines. Both must return the same columns, to the
bit, or raise the same error.
"""

import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from samplers import PackedParams, SamplingParams, pack, sample
from samplers.backends import native
from samplers.params import ROW
from samplers.sampler import SampleOutput, in_general, in_one_step
from tests.conftest import examples, require
from tests.samplers import strategies

P = SamplingParams(temperature=0.8, top_k=7, top_p=0.9)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def with_table() -> None:
    require("native")
    if not hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        pytest.skip(f"torch {torch.__version__} has no table of DLPack's functions")


def logits(batch: int = 3, vocabulary: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(seed))


def by_the_general_path(
    logits: Any, params: Any = None, seed: Any = 1, position: Any = 0, on_invalid: str = "raise", allowed: Any = None
) -> SampleOutput:
    return in_general(logits, params, seed, position, None, None, 0, allowed, False, "auto", on_invalid)


def facts(call: Callable[[], Any]) -> Any:
    """What a caller can see of an output, or of an error."""
    try:
        out = call()
    except Exception as error:
        return type(error), str(error), getattr(error, "rows", None)
    assert type(out) is SampleOutput
    columns = [c if isinstance(c, torch.Tensor) else torch.from_numpy(c) for c in out[:5]]
    described = [(type(c), c.dtype, c.shape, c.stride(), c.requires_grad, c.is_inference()) for c in columns]
    kinds = [type(c) for c in out]
    return described, kinds, [c.numpy().tobytes() for c in columns if type(c) is torch.Tensor], out[5:]


def assert_same(
    logits: Any, params: Any = P, seed: Any = 1, position: Any = 0, on_invalid: str = "raise", allowed: Any = None
) -> None:
    more = dict(on_invalid=on_invalid, allowed=allowed)
    ours = facts(lambda: sample(logits, params, seed=seed, position=position, **more))
    assert ours == facts(lambda: by_the_general_path(logits, params, seed, position, **more))


def strided(x: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values [B, V] in another layout."""
    if layout == "wide":
        return torch.cat([x, x], 1)[:, : x.shape[1]]
    if layout == "shifted":
        return torch.cat([x[:1], x])[1:]
    if layout == "columns":
        return x.T.contiguous().T
    if layout == "every other":
        return x.repeat_interleave(2, 1)[:, ::2]
    return x


@examples(400)
@given(
    row=strategies.rows(max_vocabulary=300),
    batch=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["plain", "wide", "shifted", "columns", "every other", "one row", "expanded"]),
    params=st.lists(strategies.params(extreme=True, penalties=True), min_size=5, max_size=5),
    kind=st.sampled_from(["one", "packed", "packed by row", "none"]),
    seed=st.integers(-(2**70), 2**70),
    position=st.integers(-(2**70), 2**70),
    on_invalid=st.sampled_from(["raise", "mark"]),
)
def test_equals_the_general_path(row, batch, dtype, layout, params, kind, seed, position, on_invalid):
    x = torch.from_numpy(np.stack([np.roll(row, i) for i in range(batch)])).to(dtype)
    x = {"one row": x[0], "expanded": x[:1].expand(batch, -1)}.get(layout, strided(x, layout))
    size = 1 if x.ndim == 1 else batch
    p = {"one": params[0], "packed": pack(params[0]), "packed by row": pack(params[:size]), "none": None}[kind]
    assert_same(x, p, seed, position, on_invalid)


def test_what_is_usual_takes_one_step():
    x = logits()
    for rows in (x, x[1], x[:, :1], x[1:, 2:], x[:1].expand(3, -1), *(x.to(dtype) for dtype in DTYPES)):
        for p in (P, pack(P), SamplingParams(repetition_penalty=1.3)):
            assert in_one_step(rows, p, 2**70, -1, None) is not None
            assert_same(rows, p, 2**70, -1)
    assert in_one_step(x, pack([P, SamplingParams(), P]), 1, 2, None) is not None
    grown = x.clone().requires_grad_()
    assert in_one_step(grown, P, 1, 2, None) is not None and in_one_step(2 * grown, P, 1, 2, None) is not None
    assert_same(2 * grown)


def test_a_mask_takes_one_step():
    x = logits(3, 40)
    bools = logits(3, 40, seed=1) > 0
    words = torch.tensor([[0b1011, 0xF5], [-1, 1], [7, -1]], dtype=torch.int32)
    for allowed in (
        bools,
        bools[0],
        bools.T.contiguous().T[:, :],
        words,
        words[2],
        torch.cat([words, words], 1)[:, :2],
    ):
        assert (in_one_step(x, P, 1, 2, allowed) is not None) == (allowed.stride(-1) == 1)
        assert_same(x, allowed=allowed)
        assert_same(x.bfloat16(), None, allowed=allowed)
    for usual in (bools[:1], words[:1]):
        assert in_one_step(x[:1], P, 1, 2, usual) is not None
        assert_same(x[1], allowed=usual)


UNUSUAL_MASKS = {
    "NumPy": lambda: np.ones(11, bool),
    "a list": lambda: [True] * 11,
    "a subclass": lambda: torch.ones(11, dtype=torch.bool).as_subclass(Mine),
    "meta": lambda: torch.ones(11, dtype=torch.bool, device="meta"),
    "int64": lambda: torch.ones(1, dtype=torch.int64),
    "negated": lambda: torch._neg_view(torch.tensor([1], dtype=torch.int32)),
    "uint8": lambda: torch.ones(11, dtype=torch.uint8),
    "float": lambda: torch.ones(11),
    "one row for three": lambda: torch.ones(1, 11, dtype=torch.bool),
    "bits, one row for three": lambda: torch.ones(1, 1, dtype=torch.int32),
    "too short": lambda: torch.ones(10, dtype=torch.bool),
    "too many words": lambda: torch.ones(2, dtype=torch.int32),
    "three dimensions": lambda: torch.ones(1, 3, 11, dtype=torch.bool),
    "nothing allowed": lambda: torch.zeros(1, dtype=torch.int32),
}


@pytest.mark.parametrize("kind", UNUSUAL_MASKS)
def test_unusual_masks_take_the_general_path(kind):
    allowed = UNUSUAL_MASKS[kind]()
    assert in_one_step(logits(), P, 1, 0, allowed) is None
    for on_invalid in ("raise", "mark"):
        assert_same(logits(), allowed=allowed, on_invalid=on_invalid)


def test_in_inference_mode():
    with torch.inference_mode():
        made = 2 * logits()
        assert in_one_step(made, P, 1, 0, None) is not None
        assert_same(made)
    assert_same(made)


class Mine(torch.Tensor):
    pass


class Int(int):
    pass


class Watched(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def misaligned() -> torch.Tensor:
    return torch.frombuffer(bytearray(4 * 11 + 1), dtype=torch.float32, offset=1, count=11)


def negated() -> torch.Tensor:
    return torch.conj(torch.complex(logits(), logits(seed=1))).imag


UNUSUAL_LOGITS = {
    "NumPy": lambda: logits().numpy(),
    "a list": lambda: logits().tolist(),
    "None": lambda: None,
    "a subclass": lambda: logits().as_subclass(Mine),
    "a parameter": lambda: torch.nn.Parameter(logits()),
    "fake": lambda: FakeTensorMode().from_tensor(logits()),
    "meta": lambda: logits().to("meta"),
    "functional": lambda: torch._to_functional_tensor(logits()),
    "zero": lambda: torch._efficientzerotensor((3, 11)),
    "sparse": lambda: logits().to_sparse(),
    "mkldnn": lambda: logits().to_mkldnn(),
    "negated": negated,
    "misaligned": misaligned,
    "columns apart": lambda: strided(logits(), "every other"),
    "transposed": lambda: logits(11, 3).T,
    "float64": lambda: logits().double(),
    "float8": lambda: logits().to(torch.float8_e4m3fn),
    "int32": lambda: logits().int(),
    "bool": lambda: logits() > 0,
    "complex": lambda: logits().to(torch.complex64),
    "no dimension": lambda: logits()[0, 0],
    "three dimensions": lambda: logits()[None],
    "no rows": lambda: logits()[:0],
    "no tokens": lambda: logits()[:, :0],
    "too many tokens": lambda: torch.zeros(2**20 + 1),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", UNUSUAL_LOGITS)
def test_unusual_logits_take_the_general_path(kind):
    x = UNUSUAL_LOGITS[kind]()
    assert in_one_step(x, P, 1, 0, None) is None
    assert_same(x)


UNUSUAL_ARGUMENTS: dict[str, dict[str, Any]] = {
    "a bool seed": dict(seed=True),
    "a NumPy seed": dict(seed=np.int64(5)),
    "a seed of another class": dict(seed=Int(5)),
    "seeds by row": dict(seed=[1, 2, 3]),
    "no seed": dict(seed=None),
    "a fraction": dict(position=0.5),
    "positions by row": dict(position=torch.tensor([1, 2, 3])),
    "a bool position": dict(position=False),
    "a bias": dict(params=SamplingParams(logit_bias={4: 2.0})),
    "a bias beyond the vocabulary": dict(params=SamplingParams(logit_bias={40: 2.0})),
    "a list": dict(params=[P, P, P]),
    "an empty list": dict(params=[]),
    "too few packed": dict(params=pack([P, P])),
    "no parameters": dict(params=0.9),
    "other parameters": dict(params=type("More", (SamplingParams,), {})(top_k=2)),
}


@pytest.mark.parametrize("kind", UNUSUAL_ARGUMENTS)
def test_unusual_arguments_take_the_general_path(kind):
    given = dict(params=P, seed=1, position=0) | UNUSUAL_ARGUMENTS[kind]
    assert in_one_step(logits(), given["params"], given["seed"], given["position"], None) is None
    assert_same(logits(), **given)


def test_the_other_arguments_take_the_general_path(monkeypatch):
    """They are not passed to the one step, so it must not be asked."""
    monkeypatch.setattr("samplers.sampler.in_one_step", lambda *_: pytest.fail("one step was taken"))
    x = logits()
    for more in (
        dict(stream=0),
        dict(history=[[1]] * 3),
        dict(details=True),
        dict(backend="reference"),
    ):
        sample(x, P, seed=1, **more)
    for wrong in (
        dict(details=0),
        dict(history_start=-1),
        dict(history_start=False),
        dict(backend="none"),
        dict(on_invalid="ignore"),
    ):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            sample(x, P, seed=1, **wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf, "no logit"])
@pytest.mark.parametrize("batch", [1, 3])
def test_invalid_rows_take_the_general_path(batch, bad):
    x = logits(batch)
    x[-1, 3:] = -np.inf if bad == "no logit" else bad
    x[-1, :3] = -np.inf if bad == "no logit" else 0
    assert in_one_step(x, P, 1, 0, None) is None
    for on_invalid in ("raise", "mark"):
        assert_same(x, on_invalid=on_invalid)


@pytest.mark.parametrize("mode", [FakeTensorMode, lambda: FakeTensorMode(allow_non_fake_inputs=True), Watched])
def test_under_a_mode_that_intercepts_operators(mode):
    """A fake mode makes fake columns, of which only the kinds can be compared."""
    with mode():
        assert in_one_step(logits(), P, 1, 0, None) is None
        seen = [facts_of_kind(lambda call=call: call(logits())) for call in (lambda x: sample(x, P, seed=1), by_p)]
    assert seen[0] == seen[1]


def by_p(x: torch.Tensor) -> SampleOutput:
    return by_the_general_path(x, P)


def facts_of_kind(call: Callable[[], SampleOutput]) -> Any:
    try:
        return [type(column) for column in call()]
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("transform", [torch.vmap, torch.func.functionalize])
def test_under_a_transform(transform):
    seen = []

    def traced(x: torch.Tensor) -> torch.Tensor:
        seen.append(in_one_step(x, P, 1, 0, None))
        with pytest.raises(TypeError, match="logits must be a dense tensor that holds data"):
            sample(x, P, seed=1)
        return x

    transform(traced)(logits())
    assert seen == [None]


def test_without_the_table(monkeypatch):
    for found in (None, "no capsule"):
        monkeypatch.setattr(torch.Tensor, "__dlpack_c_exchange_api__", found)
        assert native.one_step(SampleOutput)(logits(), P, 1, 0, None) is None
    monkeypatch.delattr(torch.Tensor, "__dlpack_c_exchange_api__")
    assert native.one_step(SampleOutput)(logits(), P, 1, 0, None) is None


def test_without_the_extension(monkeypatch):
    monkeypatch.setattr(native, "_reason", "not built")
    assert native.one_step(SampleOutput)(logits(), P, 1, 0, None) is None


def test_wrong_arguments_do_no_harm():
    for count in (0, 4, 6):
        with pytest.raises(TypeError, match=f"expected 5 arguments, got {count}"):
            in_one_step(*[logits()] * count)
    forged = PackedParams((P,))
    for table in (b"", b"short", bytes(ROW.itemsize - 1), None, 7):
        vars(forged)["unbiased"] = table
        assert in_one_step(logits(), forged, 1, 0, None) is None


def test_threads_draw_the_same():
    x, threads = logits(64, 9000), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(x)
    finally:
        torch.set_num_threads(threads)


def test_columns_outlive_each_other_and_are_freed():
    """500 lost outputs would hold 65 MB."""
    out = sample(logits(), P, seed=1)
    tokens, kept, expected = out.tokens, out.kept, (out.tokens.tolist(), out.kept.tolist())
    del out
    x, before = torch.zeros(4096, 1), (resident(), *references())
    for _ in range(500):
        sample(x, P, seed=1)
    after = resident(), *references()
    assert after[0] - before[0] < 32_000 and max(abs(a - b) for a, b in zip(after[1:], before[1:], strict=True)) < 100
    assert (tokens.tolist(), kept.tolist()) == expected
    tokens += 1  # ordinary memory
    assert tokens.tolist() == [token + 1 for token in expected[0]]


def resident() -> int:
    """The most KiB of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def references() -> list[int]:
    return [sys.getrefcount(value) for value in (SampleOutput, P, None)]
