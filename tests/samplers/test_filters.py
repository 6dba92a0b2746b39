"""The table of filters, and all that repeats its list by hand.

Oracle: the table; and for the fast paths the reference, with one filter at a time.
"""

import dataclasses
import re
from itertools import product

import numpy as np
import pytest

from samplers import SamplingParams, sample, textbook
from samplers.params import ROW
from samplers.reference.filters import FILTERS, Filter
from tests.conftest import ROOT, require

NAMES = [f.name for f in FILTERS]
SLOTS = [slot for f in FILTERS for slot in f.slots]
CONCEPTS = [(f.name, f.concept) for f in FILTERS]


def body(path: str, begin: str, end: str) -> str:
    """The text of a function from its head to its end."""
    text = (ROOT / path).read_text()
    return text[text.index(begin) :].split(end)[0]


def test_sampling_params():
    fields = {f.name: f.default for f in dataclasses.fields(SamplingParams)}
    assert list(fields)[1 : 1 + len(FILTERS)] == NAMES
    assert {f.name: fields[f.name] for f in FILTERS} == {f.name: f.off for f in FILTERS}
    for f in FILTERS:
        assert f.off in f.accepts and re.search(rf"\b{f.name}\b", str(SamplingParams.__doc__))


def test_textbook():
    for _, concept in CONCEPTS:
        assert callable(getattr(textbook, concept))


def test_packed_row_in_cpp():
    struct = body("csrc/params.h", "struct Params", "static constexpr")
    names = [name for line in re.findall(r"^  (?:float|u?int64_t) (.*?);", struct, re.M) for name in line.split(", ")]
    assert names == list(ROW.names)
    binding = body("csrc/bindings.cpp", "PYBIND11_NUMPY_DTYPE(", ")")
    assert re.findall(r"\w+", binding)[3:] == names


def test_order_in_cpp():
    stages = re.findall(
        r"stage\(p\.use_(\w+)\(\), \[&\] \{ return (\w+)\(", body("csrc/sampler.h", "void filter(", "\n}")
    )
    assert stages == CONCEPTS


@pytest.mark.parametrize("name", NAMES)
def test_fast_paths_in_cpp(name):
    by_mass = body("csrc/params.h", "bool cuts_by_mass()", "}")
    keeps_all = body("csrc/params.h", "bool keeps_all()", "}") + by_mass
    only_top_p = body("csrc/params.h", "bool only_top_p()", "}") + by_mass
    assert f"use_{name}()" in keeps_all, f"keeps_all forgets {name}"
    assert f"use_{name}()" in only_top_p, f"only_top_p forgets {name}"


def test_packed_row_in_triton():
    text = (ROOT / "samplers/kernels/sampler.py").read_text()
    places = {name: int(at) for name, at in re.findall(r"^(\w+): tl.constexpr = tl.constexpr\((\d+)\)", text, re.M)}
    expected = {slot.upper(): ROW.fields[slot][1] // 8 for slot in SLOTS}
    assert {name: places.get(name) for name in expected} == expected
    assert (places["N"], places["WIDTH"]) == (ROW.fields["min_tokens_to_keep"][1] // 8, ROW.itemsize // 8)


@pytest.mark.parametrize(("function", "suffix"), [("keep", ""), ("keep_counted", "_counted")])
def test_order_in_triton(function, suffix):
    keep = body("samplers/kernels/sampler.py", f"def {function}(", "\n\n\n")
    stages = re.findall(r"if tl.load\(p \+ (\w+)\) (?:>|!=) \w+:\n(?: +total = .*\n)? +(?:kept = )?(\w+)\(", keep)
    assert [(name.lower(), concept) for name, concept in stages] == [(name, c + suffix) for name, c in CONCEPTS]


@pytest.mark.parametrize("name", NAMES)
def test_fast_path_in_triton(name):
    has_filters = body("samplers/kernels/sampler.py", "def has_filters(", "\n\n\n")
    assert f"tl.load(p + {name.upper()})" in has_filters, f"has_filters forgets {name}"


def test_order_in_javascript():
    stages = body("model/study/assets/engine.js", "function stages(", "\n}")
    assert re.findall(r'\["(\w+)", p\.\w+ [><] \d, \(c\) => (\w+)\(', stages) == CONCEPTS


def values(f: Filter) -> list[float]:
    """Values that switch the filter on, from strict to lenient."""
    return [v for v in ((5, 50) if f.is_integer else (0.01, 0.3, 0.9)) if v in f.accepts]


@pytest.mark.parametrize("filter_", FILTERS, ids=NAMES)
@pytest.mark.parametrize("backend", ["native", pytest.param("triton", marks=pytest.mark.exhaustive)])
def test_alone_and_after_top_p(filter_, backend):
    """No fast path skips a filter that acts alone, or with top-p; on rows where it cuts some tokens.

    Shorter rows, on Triton too: `test_each_filter_alone` in `tests/samplers/identity/test_draws.py`.
    """
    require(backend)
    rng = np.random.default_rng(0)
    size = 300 if backend == "triton" else 9000  # 9000: a row that C++ takes for wide
    logits = np.stack([rng.standard_normal(size), 1e-3 * rng.standard_normal(size)]).astype(np.float32)
    cut = 0
    for value in values(filter_):
        for more in ({}, {"top_p": 0.9}):
            params = SamplingParams(**({filter_.name: value} | more))
            out, expected = (sample(logits, params, seed=7, backend=name) for name in (backend, "reference"))
            assert [c.tolist() for c in out[:4]] == [c.tolist() for c in expected[:4]], f"{filter_.name}={value} {more}"
            cut += int((expected.kept < size).sum())
    assert cut > 0


PAIRS = [(first, later) for i, first in enumerate(FILTERS) for later in FILTERS[i + 1 :]]


@pytest.mark.parametrize(("first", "later"), PAIRS, ids=lambda f: f.name)
@pytest.mark.parametrize("backend", ["native", "triton"])
def test_before_another(first, later, backend):
    """What a filter cuts is no part of the total that a later one sees: no list of candidates drops it before."""
    require(backend)
    weights = np.repeat([1.0, 0.3, 0.05, 1e-4], [1, 1, 50, 100])
    logits = np.log(np.random.default_rng(1).permutation(weights)).astype(np.float32)[None]
    pairs = list(product(values(first), values(later)))
    pairs = pairs if backend == "native" else pairs[1:2]  # the interpreter takes long
    choices = [SamplingParams(**{first.name: a, later.name: b}) for a, b in pairs]
    rows = np.repeat(logits, len(choices), axis=0)
    out, expected = (sample(rows, choices, seed=7, backend=name) for name in (backend, "reference"))
    assert [c.tolist() for c in out[:4]] == [c.tolist() for c in expected[:4]]
