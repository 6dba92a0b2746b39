"""The public contract: shapes, dtypes, devices, what is read and what never is written, every error."""

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import samplers
from samplers import InvalidLogits, SamplingParams, filter_logits, sample


def logits(batch: int = 3, vocabulary: int = 11) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((batch, vocabulary)).astype(np.float32)


@pytest.fixture(autouse=True)
def every_backend(backend: str, monkeypatch: pytest.MonkeyPatch):
    """Each test runs once a backend, without naming it in every call."""
    monkeypatch.setattr(
        samplers.sampler, "implementation", lambda _, on_gpu: IMPLEMENTATION("auto" if on_gpu else backend, on_gpu)
    )
    if backend != "native":
        monkeypatch.setattr(samplers.sampler, "in_one_step", lambda *_: None)


IMPLEMENTATION = samplers.sampler.implementation


def test_numpy_in_numpy_out():
    out = sample(logits(), seed=1, details=True)
    dtypes = {
        "tokens": np.int64,
        "weight": np.int64,
        "total": np.int64,
        "kept": np.int32,
        "logprobs": np.float32,
        "model_logprobs": np.float32,
        "entropy": np.float32,
    }
    for name, dtype in dtypes.items():
        column = getattr(out, name)
        assert isinstance(column, np.ndarray) and column.dtype == dtype and column.shape == (3,)


def test_torch_in_torch_out():
    out = sample(torch.from_numpy(logits()), seed=1)
    assert isinstance(out.tokens, torch.Tensor) and out.tokens.dtype == torch.int64 and out.kept.dtype == torch.int32
    assert out.model_logprobs is None and out.entropy is None
    np.testing.assert_array_equal(out.tokens, sample(logits(), seed=1).tokens)
    filtered = filter_logits(torch.from_numpy(logits()))
    assert isinstance(filtered, torch.Tensor) and filtered.dtype == torch.float32


def test_model_logprobs_are_those_of_the_untouched_logits():
    x, p = logits(), SamplingParams(repetition_penalty=3.0, presence_penalty=1.0, temperature=0.5, logit_bias={0: 2.0})
    out = sample(x, p, seed=1, history=[[1, 2, 3]] * 3, details=True)
    raw = torch.log_softmax(torch.from_numpy(x).double(), dim=-1).numpy()
    np.testing.assert_allclose(out.model_logprobs, raw[np.arange(3), out.tokens], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_its_float32_value(dtype):
    x = torch.from_numpy(logits()).to(dtype)
    a, b = sample(x, seed=3), sample(x.float(), seed=3)
    for name in ("tokens", "weight", "total", "kept"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def test_one_row():
    assert sample(logits()[0], seed=1).tokens.shape == (1,)
    assert filter_logits(logits()[0]).shape == (1, 11)
    assert sample(np.float32([4.2]), SamplingParams(top_k=1, typical_p=0.1), seed=9).tokens[0] == 0


def test_no_rows():
    out = sample(np.zeros((0, 5), np.float32), seed=1, details=True)
    assert out.tokens.shape == out.logprobs.shape == out.entropy.shape == (0,)
    assert filter_logits(np.zeros((0, 5), np.float32)).shape == (0, 5)
    p = SamplingParams(repetition_penalty=1.2)
    assert sample(np.zeros((0, 5), np.float32), p, seed=0, history=[]).tokens.shape == (0,)
    assert sample(np.zeros((0, 5), np.float32), [], seed=[], history=np.zeros((0, 4), np.int64)).tokens.shape == (0,)


def test_strided_and_read_only_logits():
    wide = np.repeat(logits(), 2, axis=1)
    strided = wide[:, ::2]
    strided.flags.writeable = False
    np.testing.assert_array_equal(sample(strided, seed=5).tokens, sample(logits(), seed=5).tokens)
    graph = torch.from_numpy(logits()).requires_grad_()
    np.testing.assert_array_equal(sample(graph, seed=5).tokens, sample(logits(), seed=5).tokens)


def test_logits_are_never_written():
    x = logits()
    before = x.copy()
    p = SamplingParams(repetition_penalty=1.5, presence_penalty=1.0, logit_bias={0: -np.inf}, top_k=2)
    allowed = np.arange(11) % 2 == 0
    sample(x, p, seed=1, history=[[1, 2], [3], []], allowed=allowed)
    filter_logits(x, p, history=[[1, 2], [3], []], allowed=allowed)
    np.testing.assert_array_equal(x, before)


def test_filter_logits_is_x_over_t():
    x = logits()
    filtered = filter_logits(x, SamplingParams(temperature=0.7))
    np.testing.assert_array_equal(filtered, x / np.float32(0.7))
    greedy = filter_logits(x, SamplingParams(temperature=0.0))
    np.testing.assert_array_equal(greedy.argmax(-1), x.argmax(-1))
    assert (np.isfinite(greedy).sum(-1) == 1).all()


def test_zero_temperature_takes_the_first_maximum():
    out = sample(
        np.float32([[1, 3, 3, 0]]), SamplingParams(temperature=0.0, top_k=4, typical_p=0.5), seed=1, details=True
    )
    assert (out.tokens[0], out.weight[0], out.total[0], out.kept[0]) == (1, 2**40, 2**40, 1)
    assert out.logprobs[0] == 0 == out.entropy[0]
    assert out.model_logprobs[0] == pytest.approx(3 - np.log(np.exp([1, 3, 3, 0]).sum()), abs=1e-6)


def test_negative_zero_is_zero():
    x = np.float32([[-0.0, 0.0, -1.0]])
    assert sample(x, SamplingParams(temperature=0.0), seed=1).tokens[0] == 0
    assert sample(x, SamplingParams(top_k=1), seed=1).kept[0] == 2


def test_the_seed_is_taken_mod_two_to_the_64():
    x = logits(1, 1000)
    a, b, c = (
        sample(x, seed=s, position=p, stream=[0]).tokens for s, p in ((-1, 5), (2**64 - 1, 5 + 2**64), (2**64 + 1, 5))
    )
    assert a == b
    assert sample(x, seed=1, position=5, stream=[0]).tokens == c
    arrays = [
        sample(x, seed=s, position=5, stream=[0]).tokens
        for s in ([-1], np.array([-1]), np.array([2**64 - 1], np.uint64))
    ]
    assert [a] * 3 == arrays
    assert sample(x, seed=[2**64 + 1], position=5, stream=[2**70]).tokens == c


def test_seeds_positions_and_streams_by_row():
    x = np.tile(logits(1, 1000), (4, 1))
    out = sample(x, seed=[1, 1, 2, 1], position=torch.tensor([0, 1, 0, 0]), stream=np.array([7, 7, 7, 7]))
    assert out.tokens[0] == out.tokens[3]
    assert len(set(out.tokens.tolist())) == 3
    rows = sample(x, seed=1).tokens  # streams 0, 1, 2, 3
    assert rows[2] == sample(x[0], seed=1, stream=[2]).tokens[0]


def test_history_forms_agree():
    p = SamplingParams(repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.2)
    ragged = [[1, 2, 2, 99], [3], []]
    padded = np.array([[1, 2, 2, 99], [3, -1, -1, -1], [-1, -1, -1, -1]])
    a = filter_logits(logits(), p, history=ragged, history_start=[1, 0, 0])
    b = filter_logits(logits(), p, history=torch.from_numpy(padded), history_start=torch.tensor([1, 0, 0]))
    np.testing.assert_array_equal(a, b)
    assert a[0, 2] == pytest.approx(logits()[0, 2] * (1.3 if logits()[0, 2] < 0 else 1 / 1.3) - 0.4 - 0.4, abs=1e-6)
    assert a[0, 1] == pytest.approx(logits()[0, 1] * (1.3 if logits()[0, 1] < 0 else 1 / 1.3), abs=1e-6)


def test_parameters_by_row():
    ps = [SamplingParams(top_k=1), SamplingParams(logit_bias={4: 1000.0}), SamplingParams(temperature=0.0)]
    out = sample(logits(), ps, seed=0)
    assert out.kept.tolist() == [1, 11, 1]
    assert out.tokens.tolist()[1] == 4


def test_allowed_mask():
    mask = np.zeros((3, 11), bool)
    mask[[0, 1, 2], [5, 6, 7]] = True
    assert sample(logits(), seed=0, allowed=mask).tokens.tolist() == [5, 6, 7]
    assert sample(logits(), seed=0, allowed=torch.from_numpy(mask[0])).tokens.tolist() == [5, 5, 5]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_invalid_rows(bad):
    x = logits(4)
    x[1, 3] = bad
    x[2] = -np.inf
    with pytest.raises(InvalidLogits, match="row 1, 2") as error:
        sample(x, seed=0)
    assert error.value.rows == [1, 2]
    with pytest.raises(InvalidLogits, match="row 1, 2"):
        filter_logits(x)
    filtered = filter_logits(x, on_invalid="mark")
    np.testing.assert_array_equal(filtered[[0, 3]], filter_logits(x[[0, 3]]))
    assert (filtered[1:3] == -np.inf).all()
    out = sample(x, seed=0, on_invalid="mark", details=True)
    good = sample(x[[0, 3]], seed=0, stream=[0, 3], details=True)
    for name in ("tokens", "weight", "total", "kept", "logprobs", "model_logprobs", "entropy"):
        np.testing.assert_array_equal(getattr(out, name)[[0, 3]], getattr(good, name))
    assert out.tokens.tolist()[1:3] == [-1, -1]
    assert out.weight[1] == out.total[1] == out.kept[1] == 0
    assert np.isnan([out.logprobs[1], out.model_logprobs[1], out.entropy[1]]).all()


def test_a_mask_can_make_a_row_valid():
    x = logits(1)
    x[0, 3] = np.nan
    out = sample(x, seed=0, allowed=np.arange(11) != 3, details=True)
    assert out.tokens[0] >= 0
    assert np.isnan(out.model_logprobs[0])  # the untouched row has no distribution


def test_a_quotient_beyond_float32_stays_finite():
    x = np.float32([[3e38, -3e38, 0.0]])
    assert np.isfinite(filter_logits(x, SamplingParams(temperature=0.1))).all()


def test_negative_zero_is_zero_in_filtered_logits():
    assert not np.signbit(filter_logits(np.float32([[-0.0, -1.0]]))[0, 0])


def test_extreme_logits():
    x = np.float32([[3.4e38, -3.4e38, 0.0, 1e-45]])
    out = sample(x, SamplingParams(temperature=1e-6), seed=0)
    assert (out.tokens[0], out.kept[0]) == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"logits": [[1.0]]}, TypeError, "logits must be a torch.Tensor or numpy.ndarray, got list"),
        ({"logits": np.zeros((1, 2))}, TypeError, "logits must be float32 or float16 in NumPy, got float64"),
        ({"logits": torch.zeros(1, 2, dtype=torch.int64)}, TypeError, "got torch.int64"),
        ({"logits": np.zeros((1, 2, 3), np.float32)}, ValueError, r"shape \(B, V\) or \(V,\), got \(1, 2, 3\)"),
        ({"logits": np.zeros((1, 0), np.float32)}, ValueError, "vocabulary of 1 to 1048576, got 0"),
        ({"logits": np.zeros(2**20 + 1, np.float32)}, ValueError, "got 1048577"),
        ({"params": [SamplingParams()] * 2}, ValueError, "params must be one or 3"),
        ({"params": 0.5}, TypeError, "params must be SamplingParams or a sequence of them, got float"),
        ({"params": SamplingParams(logit_bias={11: 1.0})}, ValueError, "token id must be < 11, got 11"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"seed": True}, TypeError, "seed must be an integer"),
        ({"seed": [True, False, 1]}, TypeError, r"seed must be an integer .*, got \[True, False, 1\]"),
        ({"stream": [np.True_, 1, 1]}, TypeError, "stream must be an integer"),
        ({"position": [1, 2]}, ValueError, r"position must be an integer or of shape \(3,\), got shape \(2,\)"),
        ({"stream": ["a", "b", "c"]}, TypeError, "stream must be an integer"),
        ({"history": [[1]]}, ValueError, "history must have one row for each of the 3 rows"),
        ({"history": [[1], [-2], []]}, ValueError, "-1 for padding, got -2"),
        ({"history": [[0.5], [], []]}, TypeError, "history must be int64"),
        ({"history": 5}, TypeError, "history must be int64"),
        ({"history": [[1, [2]], [], []]}, TypeError, "history must be int64"),
        ({"history": [np.zeros((0, 5), int), [1], [2]]}, TypeError, "history must be int64"),
        ({"seed": [[1], [1, 2]]}, TypeError, "seed must be an integer"),
        ({"seed": torch.ones(3, dtype=torch.bfloat16)}, TypeError, "seed must be an integer"),
        ({"allowed": [[True], [True, False]]}, TypeError, "allowed must be bool"),
        ({"logits": torch.zeros(1, 3, device="meta")}, TypeError, "logits must be a dense tensor that holds data"),
        ({"details": "yes"}, TypeError, "details must be True or False, got 'yes'"),
        ({"history_start": -1}, ValueError, "history_start must be in 0 .. 2.63 - 1, got -1"),
        ({"allowed": np.ones(11)}, TypeError, r"allowed must be bool \(11,\) .*, got float64"),
        (
            {"allowed": np.ones(10, bool)},
            ValueError,
            r"allowed must be bool \(11,\) .*, got bool \(10,\)",
        ),
        ({"logits": np.ma.masked_equal(logits(), 0)}, TypeError, "logits must not be a masked array: fill it first"),
        ({"seed": np.ma.masked_equal([1, 2, 3], 2)}, TypeError, "seed must not be a masked array"),
        ({"history": np.ma.masked_equal([[1], [2], [3]], 2)}, TypeError, "history must not be a masked array"),
        ({"allowed": np.ma.masked_equal(np.ones(11, bool), True)}, TypeError, "allowed must not be a masked array"),
        ({"on_invalid": "ignore"}, ValueError, "on_invalid must be 'raise' or 'mark', got 'ignore'"),
    ],
)
def test_refused_arguments(arguments, error, message):
    given = {"logits": logits(), "params": None, "seed": 0} | arguments
    with pytest.raises(error, match=message):
        sample(given.pop("logits"), given.pop("params"), **given)
    if "on_invalid" in arguments:
        with pytest.raises(error, match=message):
            filter_logits(logits(), **arguments)


def fake(x: torch.Tensor) -> None:
    with FakeTensorMode():
        sample(torch.empty(x.shape), seed=0)


class Sampling(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sample(x, seed=0).tokens


WITHOUT_DATA = {
    "meta": lambda x: sample(x.to("meta"), seed=0),
    "sparse": lambda x: sample(x.to_sparse(), seed=0),
    "nested": lambda x: sample(torch.nested.nested_tensor([x[0], x[1]]), seed=0),
    "jagged": lambda x: sample(torch.nested.nested_tensor([x[0], x[1]], layout=torch.jagged), seed=0),
    "FakeTensor": fake,
    "torch.vmap": torch.vmap(lambda x: sample(x, seed=0).tokens),
    "torch.func.grad": torch.func.grad(lambda x: filter_logits(x).sum()),
    "torch.export": lambda x: torch.export.export(Sampling(), (x,), strict=False),
}


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype")
@pytest.mark.parametrize("kind", WITHOUT_DATA)
def test_tensors_without_data_of_their_own_are_refused(kind):
    with pytest.raises(TypeError, match="logits must be a dense tensor that holds data, got"):
        WITHOUT_DATA[kind](torch.from_numpy(logits()))
