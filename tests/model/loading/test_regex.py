"""Regular expressions in bounded time. Oracle: `re`, on texts so short that it ends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.loading.regex import fullmatch

ATOMS = st.sampled_from(["a", "b", "", ".", "[ab]", "[^a]", r"\w", "^", "$", r"\b", "(?<=a)", "(?<!b.)"])
REPEATS = st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2}", "{,2}", "{1,3}", "{2,}"])
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map("|".join).map("({})".format),
        st.tuples(inner, REPEATS).map(lambda parts: "(?:{}){}".format(*parts)),
        st.tuples(st.sampled_from("=!"), inner).map(lambda parts: "(?{}{})".format(*parts)),
    ),
    max_leaves=10,
)


@given(PATTERNS, st.text("abc.", max_size=6))
def test_as_re_matches(pattern, text):
    assert fullmatch(pattern, text) == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (r".*\.(q_proj|v_proj)", True),
        (r"model\.layers\.(1[0-9]|2[0-3])\.self_attn\.[qkvo]_proj", True),
        (r"^(?!.*(?:lm_head|visual)).*(?:q_proj|k_proj).*", True),  # LLaMA-Factory's
        (r"^(model)(?!.*(lm_head|output|emb|wte|shared)).*", True),  # ms-swift's
        (r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.self_.*)", True),
        (r"model\.layers\.\d\..*", False),
    ],
)
def test_what_adapters_hold(pattern, matches):
    name = "model.layers.11.self_attn.q_proj"
    assert fullmatch(pattern, name) == (re.fullmatch(pattern, name) is not None) == matches


@pytest.mark.parametrize(
    "pattern",
    [r"(([a-z.0-9_])+)+\!", "(a|a)*!", "(a*)*!", "a?" * 30 + "a" * 30 + "!", "(?:|)" * 90 + "!", "(?=(a+)+!)a*"],
)
def test_what_re_would_not_end(pattern):
    """Each has 2^30 ways or more through 30 characters."""
    assert not fullmatch(pattern, "a" * 30)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("*", r"the regex '\*' is not valid: 'nothing to repeat"),
        ("[", r"the regex '\[' is not valid"),
        ("a{99999999999}", "is not valid: 'the repetition number is too large'"),
        ("(" * 160 + "a" + ")+" * 160, "is not valid: 'maximum recursion depth"),
        ("x" * 501, "a regex must have at most 500 characters, got 'xxx"),
        (r"(a)\1", "'groupref is not supported'"),
        ("(?i:a)", "'subpattern is not supported'"),
    ],
)
def test_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        fullmatch(pattern, "a")
