"""Oracle: transformers' classes of the same names and constructors.

What transformers' own tests say of them stands here as tables of hand-made rows, and every row of a table is put to
both: a case that fails for `transformers` tells of a changed oracle. Beyond these, ours and theirs are compared on
drawn rows, whose logits are distinct multiples of 1/64; the property tests leave out rows on which transformers' own
answer hangs on last digits (`decided`).
"""

import copy
import inspect
import itertools
import math
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
)

from samplers import InvalidLogits, hf
from tests.conftest import examples

INF = math.inf
TEMPERATURE, PENALTY = "TemperatureLogitsWarper", "RepetitionPenaltyLogitsProcessor"
TOP_K, TOP_P, MIN_P = "TopKLogitsWarper", "TopPLogitsWarper", "MinPLogitsWarper"
TYPICAL, EPSILON, ETA = "TypicalLogitsWarper", "EpsilonLogitsWarper", "EtaLogitsWarper"
PARAMETER = {  # of each class, the first of its constructor, and a value with which it changes something
    TEMPERATURE: ("temperature", 0.7),
    TOP_K: ("top_k", 4),
    TOP_P: ("top_p", 0.8),
    MIN_P: ("min_p", 0.1),
    TYPICAL: ("mass", 0.5),
    EPSILON: ("epsilon", 0.05),
    ETA: ("epsilon", 0.05),
    PENALTY: ("penalty", 1.3),
}
FILTERS = (TOP_K, TOP_P, MIN_P, TYPICAL, EPSILON, ETA)
# What transformers did not take before 5.23: prompt_ignore_length as a tensor, and ids beyond the vocabulary.
OLD = tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 23)
Args = dict[str, Any]


@pytest.fixture(params=[transformers, hf], ids=["transformers", "alea"])
def library(request: pytest.FixtureRequest) -> Any:
    """Each of the two that have the classes."""
    return request.param


@pytest.fixture(params=list(PARAMETER))
def name(request: pytest.FixtureRequest) -> str:
    """Each class."""
    return request.param


def made(library: Any, name: str, **args: Any) -> LogitsProcessor:
    """One of the classes; its first parameter need not be given."""
    first, value = PARAMETER[name]
    return getattr(library, name)(**{first: value, **args})


def call(processor: Any, scores: torch.Tensor, ids: torch.Tensor | None = None) -> torch.Tensor:
    """The processor's scores; it may neither write what it is given nor hand it back."""
    before, ids_before = scores.clone(), copy.deepcopy(ids)
    out = processor(ids, scores)
    assert same(scores, before)
    assert ids is None or torch.equal(ids, ids_before)
    assert out.data_ptr() != scores.data_ptr()
    return out


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def assert_agree(ours: torch.Tensor, theirs: torch.Tensor, rtol: float = 1e-6) -> None:
    """Type, shape, kept set, and values to 1e-6."""
    assert torch.equal(ours == -INF, theirs == -INF)
    torch.testing.assert_close(ours, theirs, rtol=rtol, atol=0)


def drawn(size: int, vocabulary: int, seed: int = 0, width: int = 512) -> torch.Tensor:
    """float32 [size, vocabulary], in each row distinct multiples of 1/64 around 0, width of them to choose from."""
    rng, width = np.random.default_rng(seed), max(vocabulary, width)
    values = [rng.choice(width, vocabulary, replace=False) - width // 2 for _ in range(size)]
    return torch.tensor(np.array(values), dtype=torch.float32) / 64


def log(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows).log()


# --- What transformers' tests say ------------------------------------------------------------------------------------

FLAT = torch.full((2, 5), 0.2)
RAMP = torch.arange(10.0)
BENT = torch.stack([RAMP, torch.where(RAMP < 5, RAMP + 10, RAMP)])
STEEP = torch.stack([RAMP - 5, 100 * (RAMP - 5)])
TWO_TO_ZERO = dict(min_tokens_to_keep=2, filter_value=0.0)
ALL = list(range(10))
KEPT = [  # class, arguments, scores, ids kept in each row
    (TOP_K, dict(top_k=3), BENT, [[7, 8, 9], [2, 3, 4]]),
    (TOP_K, dict(top_k=1, filter_value=0.0, min_tokens_to_keep=3), FLAT, [ALL[:5], ALL[:5]]),
    (TOP_K, dict(top_k=1, filter_value=0.0, min_tokens_to_keep=3), BENT, [[7, 8, 9], [2, 3, 4]]),
    (TOP_K, dict(top_k=11), BENT, [ALL, ALL]),
    (TOP_K, dict(top_k=1), torch.tensor([[1.0, 3.0, 3.0, 2.0]]), [[1, 2]]),
    (TOP_P, dict(top_p=0.8), log([0.3, 0.1, 0.1, 0.5], [0.15, 0.3, 0.3, 0.25]), [[0, 3], [1, 2, 3]]),
    (TOP_P, dict(top_p=0.9, **TWO_TO_ZERO), STEEP, [[7, 8, 9], [8, 9]]),
    (TOP_P, dict(top_p=0), STEEP, [[9], [9]]),
    (TOP_P, dict(top_p=0.0, min_tokens_to_keep=3), STEEP, [[7, 8, 9], [7, 8, 9]]),
    (TOP_P, dict(top_p=1), BENT, [ALL, ALL]),
    (
        MIN_P,
        dict(min_p=0.05),
        log([0.9, 0.0274, 0.047, 0.0274], [0.15, 0.3, 0.3, 0.25], [0.97, 0.01, 0.01, 0.01]),
        [[0, 2], [0, 1, 2, 3], [0]],
    ),
    (MIN_P, dict(min_p=0.9, **TWO_TO_ZERO), STEEP, [[8, 9], [8, 9]]),
    (MIN_P, dict(min_p=0), STEEP, [ALL, ALL]),
    (MIN_P, dict(min_p=1.0), STEEP, [[9], [9]]),
    (TYPICAL, dict(mass=0.5), log([0.97, 0.01, 0.01, 0.01], [0.4, 0.2, 0.2, 0.2]), [[0], [1, 2, 3]]),
    (TYPICAL, dict(mass=0.5, filter_value=0.0, min_tokens_to_keep=3), FLAT, [ALL[:5], ALL[:5]]),
    (TYPICAL, dict(mass=0.7, **TWO_TO_ZERO), STEEP / torch.tensor([[1.0], [20.0]]), [[8, 9], [8, 9]]),
    (EPSILON, dict(epsilon=0.1), log([0.87, 0.099, 0.001, 0.03], [0.4, 0.299, 0.101, 0.2]), [[0], [0, 1, 2, 3]]),
    (EPSILON, dict(epsilon=0.05, **TWO_TO_ZERO), STEEP, [[7, 8, 9], [8, 9]]),
    (EPSILON, dict(epsilon=0.99), FLAT, [ALL[:5], ALL[:5]]),
    (ETA, dict(epsilon=0.0625), log([0.0, 0.1, 0.8, 0.1], [0.01, 0.04, 0.9, 0.05]), [[1, 2, 3], [2]]),
    (ETA, dict(epsilon=0.1, device="cpu", **TWO_TO_ZERO), STEEP, [[8, 9], [8, 9]]),
]


@pytest.mark.parametrize(("name", "args", "scores", "kept"), KEPT)
def test_kept(library: Any, name: str, args: Args, scores: torch.Tensor, kept: list[list[int]]):
    expected = torch.full_like(scores, args.get("filter_value", -INF))
    for row, ids in enumerate(kept):
        expected[row, ids] = scores[row, ids]
    assert same(call(made(library, name, **args), scores), expected)


def test_typical_sixty_nats_below_the_first(library: Any):
    """There ours tells tokens no longer apart (docs/definition.md step 3): the second that min_tokens_to_keep asks for
    may be another than transformers', and is never drawn."""
    out = call(made(library, TYPICAL, mass=0.7, **TWO_TO_ZERO), STEEP)
    assert (out != 0).sum(-1).tolist() == [2, 2]
    assert out[:, 9].tolist() == STEEP[:, 9].tolist()
    assert out[1].softmax(-1)[9] == 1


PEAKED = torch.full((2, 20), 0.05)
PEAKED[1, 5], PEAKED[1, 10] = 0.15, -0.35


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_temperature_sharpens_and_flattens(library: Any, temperature: float):
    out = call(made(library, TEMPERATURE, temperature=temperature), PEAKED)
    torch.testing.assert_close(out, PEAKED / temperature, rtol=1e-6, atol=0)
    before, after = PEAKED.softmax(-1), out.softmax(-1)
    torch.testing.assert_close(after[0], before[0])
    sharper = 1 / temperature - 1
    assert math.copysign(1, after[1, 5] - before[1, 5]) == math.copysign(1, sharper) or sharper == 0
    assert math.copysign(1, before[1, 10] - after[1, 10]) == math.copysign(1, sharper) or sharper == 0


TENTHS = torch.full((2, 10), 0.1)
TENTHS[0, 0], TENTHS[1, 5] = -0.1, 0.4
PAIRS = torch.tensor([[0, 1], [5, 0]])
HALVED = {(0, 0): -0.2, (0, 1): 0.05, (1, 0): 0.05, (1, 5): 0.2}
TWICE = torch.tensor([[0, 1, 0, 1], [5, 0, 5, 0]])
PENALISED = [  # arguments, ids, what is another number in TENTHS afterwards
    (dict(penalty=2.0), PAIRS, HALVED),
    (dict(penalty=2.0), TWICE, HALVED),
    (dict(penalty=0.5), PAIRS, {(0, 0): -0.05, (0, 1): 0.2, (1, 0): 0.2, (1, 5): 0.8}),
    (dict(penalty=1.0), PAIRS, {}),
    (dict(penalty=2.0), torch.tensor([1, 5]), {(0, 1): 0.05, (1, 5): 0.2}),
    (dict(penalty=2.0), PAIRS[:, :0], {}),
    (dict(penalty=2.0, prompt_ignore_length=0), PAIRS, HALVED),
    (dict(penalty=2.0, prompt_ignore_length=2), PAIRS, {}),
    (dict(penalty=2.0, prompt_ignore_length=2), TWICE, HALVED),
    (dict(penalty=2.0, prompt_ignore_length=3), TWICE, {(0, 1): 0.05, (1, 0): 0.05}),
    (dict(penalty=2.0, prompt_ignore_length=9), PAIRS, {}),
]
PENALISED_SINCE_5_23 = [
    (dict(penalty=2.0), torch.tensor([[0, 10], [999, 10]]), {(0, 0): -0.2}),
    (dict(penalty=2.0, prompt_ignore_length=1), torch.tensor([[0, 10], [10, 5]]), {(1, 5): 0.2}),
    (dict(penalty=2.0, prompt_ignore_length=torch.tensor([0, 0])), PAIRS, HALVED),
    (dict(penalty=2.0, prompt_ignore_length=torch.tensor([1, 2])), PAIRS, {(0, 1): 0.05}),
    (dict(penalty=2.0, prompt_ignore_length=torch.tensor([3, 2])), TWICE, {(0, 1): 0.05, (1, 5): 0.2, (1, 0): 0.05}),
    (dict(penalty=2.0, prompt_ignore_length=torch.tensor([9, 1], dtype=torch.int32)), PAIRS, {(1, 0): 0.05}),
]


@pytest.mark.parametrize(("args", "ids", "changed"), PENALISED + PENALISED_SINCE_5_23)
def test_repetition_penalty(library: Any, args: Args, ids: torch.Tensor, changed: dict[tuple[int, int], float]):
    if library is transformers and OLD and any(args is new for new, *_ in PENALISED_SINCE_5_23):
        pytest.skip(f"transformers {transformers.__version__} refuses it")
    expected = TENTHS.clone()
    for place, value in changed.items():
        expected[place] = value
    assert_agree(call(made(library, PENALTY, **args), TENTHS, ids), expected)


def seven_processors(library: Any) -> LogitsProcessorList:
    return LogitsProcessorList(
        [
            MinLengthLogitsProcessor(min_length=10, eos_token_id=0),
            made(library, TEMPERATURE, temperature=0.5),
            made(library, PENALTY, penalty=2.0),
            made(library, TOP_K, top_k=3),
            made(library, TOP_P, top_p=0.8),
            NoRepeatNGramLogitsProcessor(2),
            NoBadWordsLogitsProcessor(bad_words_ids=[[1]], eos_token_id=0),
        ]
    )


@pytest.mark.parametrize("flat", [True, False])
def test_a_list_is_its_processors_in_turn(library: Any, flat: bool):
    ids = torch.randint(15, (4, 10), generator=torch.Generator().manual_seed(0))
    scores = torch.full((4, 15), 1 / 15) if flat else drawn(4, 15)
    by_hand = scores
    for processor in seven_processors(library):
        by_hand = processor(ids, by_hand)
    assert same(call(seven_processors(library), scores, ids), by_hand)
    if not flat:
        assert_agree(call(seven_processors(hf), scores, ids), call(seven_processors(transformers), scores, ids))


# --- Ours against theirs ---------------------------------------------------------------------------------------------

SETTINGS = [
    *((TEMPERATURE, dict(temperature=value)) for value in (1e-3, 0.3, 1.0, 1.7, 1e3)),
    *((TOP_K, dict(top_k=value)) for value in (1, 5, 33, 10**9)),
    *((TOP_P, dict(top_p=value)) for value in (0, 0.3, 0.95, 1.0)),
    *((MIN_P, dict(min_p=value)) for value in (0, 0.03, 0.4, 1.0)),
    *((TYPICAL, dict(mass=value)) for value in (0.02, 0.4, 0.95)),
    *((EPSILON, dict(epsilon=value)) for value in (1e-4, 0.02, 0.9)),
    *((ETA, dict(epsilon=value)) for value in (1e-4, 0.02, 0.9)),
    *((name, dict(min_tokens_to_keep=value)) for name in FILTERS for value in (6, 10**6)),
    *((name, dict(filter_value=value)) for name in FILTERS for value in (0.0, -1e4, 7.5)),
    *((name, dict(min_tokens_to_keep=3, filter_value=-1.0)) for name in FILTERS),
    *((PENALTY, dict(penalty=value)) for value in (0.2, 1.0, 1.2, 9.0)),
    (PENALTY, dict(prompt_ignore_length=4)),
]
SHAPES = [(8, 1), (8, 2), (1, 7), (8, 33), (8, 1001)]


def history(size: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (size, 9), generator=torch.Generator().manual_seed(vocabulary))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "args"), SETTINGS)
def test_agree(name: str, args: Args, shape: tuple[int, int]):
    scores, ids = drawn(*shape), history(*shape) if name == PENALTY else None
    assert_agree(call(made(hf, name, **args), scores, ids), call(made(transformers, name, **args), scores, ids))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits(name: str, dtype: torch.dtype):
    """The type stays, and what is kept is what transformers keeps of the same numbers in float32."""
    scores, ids = (8 * drawn(6, 25, width=60)).to(dtype), history(6, 25)
    ours = call(made(hf, name), scores, ids)
    theirs = call(made(transformers, name), scores.float(), ids).to(dtype)
    assert ours.dtype == dtype
    assert_agree(ours, theirs, rtol=torch.finfo(dtype).eps)
    if name in FILTERS:
        assert same(ours, theirs)
        assert same(made(hf, name, filter_value=-9.0)(ids, scores), scores.masked_fill(theirs == -INF, -9.0))


def test_double_precision(name: str):
    """As transformers in every bit, of scores that float32 tells apart."""
    scores, ids = drawn(6, 25).double(), history(6, 25)
    if name in (TEMPERATURE, PENALTY):
        scores += 1e-12
    assert same(call(made(hf, name), scores, ids), call(made(transformers, name), scores, ids))


@pytest.mark.parametrize("name", [TEMPERATURE, TOP_K, MIN_P, EPSILON, ETA])
def test_three_dimensions(name: str):
    scores = drawn(6, 25).view(2, 3, 25)
    assert_agree(call(made(hf, name), scores), call(made(transformers, name), scores))


@pytest.mark.parametrize("name", [TOP_P, TYPICAL])
def test_three_dimensions_that_transformers_refuses(name: str):
    scores = drawn(6, 25)
    assert same(call(made(hf, name), scores.view(2, 3, 25)).view(6, 25), call(made(transformers, name), scores))


def test_penalties_in_three_dimensions():
    """The last position; transformers writes its result into the scores."""
    scores, ids = drawn(6, 25).view(2, 3, 25), history(2, 25)
    assert_agree(call(made(hf, PENALTY), scores, ids), made(transformers, PENALTY)(ids, scores.clone()))


def test_gradients(name: str):
    """No id twice: transformers counts its gradient twice."""
    gradients, ids = [], torch.arange(36).view(4, 9) % 25
    for library in (hf, transformers):
        scores = drawn(4, 25).requires_grad_()
        out = made(library, name)(ids, scores)
        (out.masked_fill(out == -INF, 0) ** 2).sum().backward()
        gradients.append(scores.grad)
    assert gradients[0].any()
    torch.testing.assert_close(*gradients)


VIEWS = {
    "every second": lambda: drawn(6, 40)[:, ::2],
    "backwards in memory": lambda: drawn(6, 20).flip(1).t().contiguous().t(),
    "a window": lambda: drawn(8, 30)[2:7, 5:28],
    "one row for all": lambda: drawn(1, 20).expand(4, 20),
}


@pytest.mark.parametrize("view", VIEWS)
def test_views(name: str, view: str):
    scores = VIEWS[view]()
    assert not scores.is_contiguous()
    ids = history(len(scores), scores.shape[1])
    assert_agree(call(made(hf, name), scores, ids), call(made(transformers, name), scores.contiguous(), ids))


def test_banned_tokens_stay_banned(name: str):
    scores, ids = drawn(5, 30), history(5, 30)
    scores[:, ::3] = -INF
    ours = call(made(hf, name), scores, ids)
    assert_agree(ours, call(made(transformers, name), scores, ids))
    assert (ours[:, ::3] == -INF).all()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        (TOP_K, dict(top_k=9)),
        (TOP_P, dict(min_tokens_to_keep=9)),
        (MIN_P, dict(min_p=0.0)),
        (EPSILON, dict(min_tokens_to_keep=9)),
    ],
)
def test_banned_tokens_stay_banned_where_the_filter_keeps_them(name: str, args: Args):
    scores = torch.tensor([[1.0, -INF, 0.0, -INF, -1.0]])
    args = dict(filter_value=0.5, **args)
    assert same(call(made(transformers, name, **args), scores), scores)
    assert same(call(made(hf, name, **args), scores), scores)


def decided(name: str, args: Args, row: torch.Tensor) -> bool:
    """Whether transformers, in float64, keeps the same where the row and its parameter move by 1e-5."""
    parameter = PARAMETER[name][0]
    moved = row.double() + 1e-5 * torch.randn(12, row.shape[1], generator=torch.Generator().manual_seed(0))
    values = [args[parameter]] if name == TOP_K else [factor * args[parameter] for factor in (1 - 1e-5, 1 + 1e-5)]
    near = [made(transformers, name, **{**args, parameter: value, "filter_value": -INF}) for value in values]
    kept = torch.cat([processor(None, moved) > -INF for processor in near])
    return bool((kept == kept[0]).all())


@st.composite
def rows(draw: st.DrawFn) -> torch.Tensor:
    """float32 [1, V], narrow or wide, with banned tokens or without."""
    vocabulary, seed = draw(st.integers(1, 400)), draw(st.integers(0, 2**32 - 1))
    row = drawn(1, vocabulary, seed, draw(st.sampled_from([1, 256, 1024])))
    if draw(st.booleans()):
        banned = np.random.default_rng(seed).random((1, vocabulary)) < draw(st.sampled_from([0.1, 0.9]))
        banned[0, draw(st.integers(0, vocabulary - 1))] = False
        row[torch.from_numpy(banned)] = -INF
    return row


VALUES = {
    TOP_K: st.integers(1, 500),
    TOP_P: st.floats(0, 0.999),
    MIN_P: st.floats(0, 0.999),
    TYPICAL: st.floats(0.01, 0.99),
    EPSILON: st.floats(-5, -0.1).map(lambda power: 10**power),
    ETA: st.floats(-5, -0.1).map(lambda power: 10**power),
}


@pytest.mark.parametrize("filter_name", FILTERS)
@examples(120)
@given(data=st.data())
def test_filters_agree_everywhere(filter_name: str, data: st.DataObject):
    row = data.draw(rows())
    args = {
        PARAMETER[filter_name][0]: data.draw(VALUES[filter_name]),
        "min_tokens_to_keep": data.draw(st.sampled_from([1, 1, 2, 5, 50])),
        "filter_value": -INF if row.min() == -INF else data.draw(st.sampled_from([-INF, -1e4, 0.3])),
    }
    assume(decided(filter_name, args, row))
    ours, theirs = (call(made(library, filter_name, **args), row) for library in (hf, transformers))
    assert same(ours, theirs)


@given(row=rows(), temperature=st.floats(-2, 2).map(lambda power: 10**power))
def test_temperatures_agree_everywhere(row: torch.Tensor, temperature: float):
    ours, theirs = (call(made(library, TEMPERATURE, temperature=temperature), row) for library in (hf, transformers))
    assert_agree(ours, theirs)


@given(data=st.data(), scores=st.builds(drawn, st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**32 - 1)))
def test_penalties_agree_everywhere(data: st.DataObject, scores: torch.Tensor):
    (size, vocabulary), length = scores.shape, data.draw(st.integers(0, 12))
    beyond = 0 if OLD else data.draw(st.sampled_from([0, 0, 5]))
    ids = torch.from_numpy(
        np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))).integers(vocabulary + beyond, size=(size, length))
    )
    lengths = st.integers(0, 15)
    tensors = st.lists(lengths, min_size=size, max_size=size).map(torch.tensor)
    args = dict(
        penalty=data.draw(st.floats(0.05, 20)),
        prompt_ignore_length=data.draw(st.one_of(st.none(), lengths, *([] if OLD else [tensors]))),
    )
    ours, theirs = (call(made(library, PENALTY, **args), scores, ids) for library in (hf, transformers))
    assert_agree(ours, theirs)


CHAIN = ((TEMPERATURE, 1.6), (TOP_K, 30), (TOP_P, 0.9), (MIN_P, 0.02), (PENALTY, 1.9))


def chained(library: Any, steps: tuple[tuple[str, Any], ...]) -> LogitsProcessorList:
    return LogitsProcessorList([getattr(library, name)(value) for name, value in steps])


def test_every_order_of_a_chain():
    scores, ids, outcomes = drawn(4, 50, seed=3), history(4, 50), set()
    for steps in itertools.permutations(CHAIN):
        ours, theirs = (call(chained(library, steps), scores, ids) for library in (hf, transformers))
        assert_agree(ours, theirs)
        outcomes.add(tuple((ours > -INF).sum(-1).tolist()))
    assert len(outcomes) > 3  # the order matters here


# --- In generate -----------------------------------------------------------------------------------------------------

LISTS = {
    **{name: ((name, value),) for name, (_, value) in PARAMETER.items()},
    "all": (
        (PENALTY, 1.3),
        (TEMPERATURE, 1.5),
        (TOP_K, 40),
        (TOP_P, 0.95),
        (MIN_P, 0.01),
        (TYPICAL, 0.9),
        (EPSILON, 1e-3),
        (ETA, 2e-3),
    ),
}


@pytest.mark.parametrize("steps", LISTS.values(), ids=list(LISTS))
def test_generate(llama: Any, ids: torch.Tensor, steps: tuple[tuple[str, Any], ...]):
    """The same text as with transformers' classes; the logits that generate keeps for its caller stay as they were."""
    kept = dict(return_dict_in_generate=True, output_scores=True, output_logits=True)
    outputs = []
    for library in (hf, transformers):
        torch.manual_seed(7)
        processors = chained(library, steps)
        outputs.append(
            llama.generate(ids, logits_processor=processors, do_sample=True, top_k=0, max_new_tokens=8, **kept)
        )
    ours, theirs = outputs
    assert torch.equal(ours.sequences, theirs.sequences)
    for a, b in zip(ours.scores, theirs.scores, strict=True):
        assert_agree(a, b)
    assert all(torch.equal(a, b) for a, b in zip(ours.logits, theirs.logits, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(ours.logits, ours.scores, strict=True))


# --- Constructors ----------------------------------------------------------------------------------------------------


def test_signatures(name: str):
    ours, theirs = (inspect.signature(getattr(library, name)).parameters for library in (hf, transformers))
    assert [(p.name, p.default) for p in ours.values()] == [(p.name, p.default) for p in theirs.values()]


def test_attributes(name: str):
    """Those of transformers, to be read: set, they would change nothing."""
    args = dict(min_tokens_to_keep=7, filter_value=-9.0) if name in FILTERS else {}
    ours, theirs = made(hf, name, **args), made(transformers, name, **args)
    within_a_batch = {"logits_indices", "cu_seq_lens_q"}  # what transformers' continuous batching tells its own class
    for attribute in vars(theirs).keys() - within_a_batch:
        value = getattr(theirs, attribute)
        assert getattr(ours, attribute) == (value if value is None else pytest.approx(float(value)))
    with pytest.raises(AttributeError):
        setattr(ours, PARAMETER[name][0], 0.5)


def test_continuous_batching(name: str):
    """Where transformers says whether a class may be used there, ours says the same."""
    theirs = getattr(getattr(transformers, name), "supports_continuous_batching", None)
    assert theirs is None or getattr(hf, name).supports_continuous_batching == theirs


def test_copies(name: str):
    scores, ids, processor = drawn(3, 20), history(3, 20), made(hf, name)
    for other in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert same(other(ids, scores), processor(ids, scores))
    assert isinstance(processor, LogitsProcessor)
    assert name in repr(processor)


POOL = (-1, -0.1, 0, 0.0, 1e-50, 1e-9, 1e-6, 0.5, 1, 1.0, 1.2, 2, 2.5, 50, 1e6, 1e7, 1e39, INF, math.nan, True, "0.5")
NARROWER = {  # what transformers takes and ours refuses, for each class
    TEMPERATURE: "1e-50 1e-09 10000000.0 1e+39 inf",
    TOP_K: "True",
    TOP_P: "nan True '0.5'",
    MIN_P: "True",
    TYPICAL: "'0.5'",
    EPSILON: "nan '0.5'",
    ETA: "nan '0.5'",
    PENALTY: "1e-50 1e+39 inf",
}
WIDER = {  # what ours takes and transformers refuses
    TEMPERATURE: "1 2 50",
    TYPICAL: "1 1.0",
    PENALTY: "1 2 50",
}


def accepts(library: Any, name: str, args: Args) -> bool:
    try:
        made(library, name, **args)
    except (TypeError, ValueError):
        return False
    return True


def test_the_same_values_are_accepted(name: str):
    first = PARAMETER[name][0]
    ours, theirs = ({repr(x) for x in POOL if accepts(lib, name, {first: x})} for lib in (hf, transformers))
    assert theirs - ours == set(NARROWER[name].split())
    assert ours - theirs == set(WIDER.get(name, "").split())


RULES = [  # class, parameter, what it accepts, values out of range, values of another type
    (TEMPERATURE, "temperature", "in [1e-6, 1e6]", [0.0, -1.0, math.nan, INF, 1e-7], [True, "a", None]),
    (TOP_K, "top_k", "an integer >= 1", [0, -1], [2.5, True, "a", None]),
    (TOP_P, "top_p", "in [0, 1]", [1.2, -0.1, math.nan], [True, "a", None]),
    (MIN_P, "min_p", "in [0, 1]", [1.5, -0.1, math.nan], [True, "a", None]),
    (TYPICAL, "mass", "in (0, 1]", [0.0, 1.5, -0.5, math.nan], [True, "a", None]),
    (EPSILON, "epsilon", "in (0, 1)", [0.0, 1.0, -1.0, math.nan], [True, "a", None]),
    (ETA, "epsilon", "in (0, 1)", [0.0, 1.0, -1.0, math.nan], [True, "a", None]),
    (PENALTY, "penalty", "> 0 and finite in float32", [0.0, -1.0, INF, math.nan], [True, "a", None]),
    (PENALTY, "prompt_ignore_length", "an integer >= 0", [-1], [2.5, True, "a"]),
    *((name, "min_tokens_to_keep", "an integer >= 1", [0, -1], [1.5, True, "a", None]) for name in FILTERS),
]
REFUSED = [
    (*rule[:3], value, kind) for rule in RULES for kind, i in ((ValueError, 3), (TypeError, 4)) for value in rule[i]
]


@pytest.mark.parametrize(("name", "parameter", "accepted", "value", "kind"), REFUSED)
def test_refusals_name_parameter_and_range(name: str, parameter: str, accepted: str, value: Any, kind: type[Exception]):
    with pytest.raises(kind) as error:
        made(hf, name, **{parameter: value})
    message = rf"{parameter} must be (a number, )?{re.escape(accepted)}, got {re.escape(repr(value))}"
    assert re.match(message, str(error.value))


@pytest.mark.parametrize("zero", [np.float32(0), np.int64(0)], ids=repr)
@pytest.mark.parametrize("name", [TEMPERATURE, EPSILON, ETA])
def test_numpys_zero_is_refused(name: str, zero: Any):
    with pytest.raises(ValueError, match="got"):
        made(hf, name, **{PARAMETER[name][0]: zero})


def test_lengths_of_another_shape(library: Any):
    if library is transformers and OLD:
        pytest.skip(f"transformers {transformers.__version__} takes no tensors")
    for shape in [(), (2, 1)]:
        with pytest.raises(ValueError, match="prompt_ignore_length"):
            made(library, PENALTY, prompt_ignore_length=torch.ones(shape, dtype=torch.int64))
    three = made(library, PENALTY, prompt_ignore_length=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="prompt_ignore_length"):
        three(PAIRS, TENTHS)


# --- Rows without a distribution -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [[1.0, math.nan, 0.0], [1.0, INF, 0.0], [-INF, -INF, -INF]], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_invalid_rows(name: str, row: list[float], dtype: torch.dtype):
    scores = torch.tensor([[1.0, 2.0, 3.0], row, [3.0, 2.0, 1.0], row], dtype=dtype)
    with pytest.raises(InvalidLogits) as error:
        made(hf, name)(torch.zeros((4, 1), dtype=torch.int64), scores)
    assert error.value.rows == [1, 3]
