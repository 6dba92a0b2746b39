"""Texts that are drawn under a grammar. Oracles: jsonschema, re, and llguidance's own matcher."""

import json
import re
from random import Random
from typing import Any

import jsonschema
import llguidance
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samplers import SamplingParams, sample
from samplers.grammar import CompiledGrammar, Grammar, InvalidGrammar, compiled_grammar
from samplers.grammar.background import look_ahead, pool
from samplers.grammar.compiled_grammar import NO_FORCING
from samplers.grammar.matcher import MOST_FORCED
from tests.conftest import examples, working_backends
from tests.samplers.grammar.vocabularies import BIAS, END, TOKENS, VOCABULARY, following, text_of, tokens_of

PARAMS = SamplingParams(temperature=0.9, top_p=0.98)


def drawn(grammar: CompiledGrammar, seed: int, backend: str, most: int = 120) -> list[int]:
    """Token by token from random logits."""
    matcher, random, ids = grammar.matcher(), np.random.default_rng(seed), list[int]()
    while len(ids) < most and END not in ids:
        logits = (random.standard_normal(len(TOKENS)) + BIAS).astype(np.float32)
        allowed = matcher.allowed()[None]
        (token,) = sample(logits[None], PARAMS, seed=seed, position=len(ids), allowed=allowed, backend=backend).tokens
        ids.append(int(token))
        if token != END:
            matcher.put(int(token))
    return ids


def finished_text(grammar: CompiledGrammar, seed: int) -> str | None:
    """The same in C++ and in NumPy; None if it is too long."""
    texts = [drawn(grammar, seed, backend) for backend in ("reference", "native") if backend in working_backends()]
    assert all(ids == texts[0] for ids in texts)
    return text_of(texts[0]).decode() if texts[0][-1] == END else None


# ---- schemas ----

NAMES = st.text('abcé "\\{', min_size=1, max_size=4)
LITERALS = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), NAMES)
LEAVES = st.one_of(
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}, {"type": "string"}]
    ),
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(0, 99),
    ),
    st.builds(
        lambda low, size: {"type": "string", "minLength": low, "maxLength": low + size},
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    st.sampled_from(["^[a-z]{2,4}$", "^(ab|c)+$", "^\\d{3}-\\d$"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from(["date", "time", "ipv4", "uuid"]).map(lambda kind: {"type": "string", "format": kind}),
    LITERALS.map(lambda value: {"const": value}),
    st.lists(LITERALS, min_size=1, max_size=4, unique_by=repr).map(lambda values: {"enum": values}),
)


def arrays(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sizes = st.tuples(st.integers(0, 2), st.integers(0, 2))
    return st.builds(
        lambda one, size: {"type": "array", "items": one, "minItems": size[0], "maxItems": sum(size)}, items, sizes
    )


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def made(properties: dict[str, Any], missing: int) -> dict[str, Any]:
        required = sorted(properties)[missing:]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    return st.builds(made, st.dictionaries(NAMES, values, max_size=3), st.integers(0, 3))


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    any_of = st.lists(inner, min_size=1, max_size=3).map(lambda many: {"anyOf": many})
    return st.one_of(arrays(inner), objects(inner), any_of)


SCHEMAS = st.recursive(LEAVES, containers, max_leaves=5)


@examples(500)
@given(SCHEMAS, st.integers(0, 7))
def test_every_finished_text_is_valid_under_its_schema(schema, seed):
    text = finished_text(following(Grammar.json_schema(schema)), seed)
    if text is not None:
        checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator, format_checker=checker)


@examples(100)
@given(st.data())
def test_every_value_that_is_valid_can_be_drawn(data):
    schema = data.draw(SCHEMAS.filter(lambda one: not re.search("'(format|pattern)'", repr(one))))
    text = json.dumps(data.draw(values_of(schema)), ensure_ascii=False, separators=(",", ":"))
    matcher = following(Grammar.json_schema(schema, compact=True)).matcher()
    for byte in text.encode():
        assert 2 + byte in tokens_of(matcher.allowed()), text
        matcher.put(2 + byte)
    assert END in tokens_of(matcher.allowed())


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Of what is valid, with the names of an object in their order, as llguidance has them."""
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return st.lists(values_of(schema["items"]), min_size=schema["minItems"], max_size=schema["maxItems"])
    if schema["type"] == "object":
        chosen = [(name, values_of(one), name in schema["required"]) for name, one in schema["properties"].items()]
        each = [
            st.tuples(st.just(name), one if needed else st.none() | one.map(lambda v: [v]))
            for name, one, needed in chosen
        ]
        return st.tuples(*each).map(lambda pairs: object_of(pairs, schema["required"]))
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(schema.get("minimum", -999), schema.get("maximum", 999)),
        "number": st.integers(-99, 99).map(lambda n: n / 4),
        "string": st.text('ab é"\\\n', min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 5)),
    }
    return simple[schema["type"]]


def object_of(pairs: tuple[tuple[str, Any], ...], required: list[str]) -> dict[str, Any]:
    """An optional value is None or in a list."""
    kept = [(name, value) for name, value in pairs if name in required or value is not None]
    return {name: value if name in required else value[0] for name, value in kept}


# ---- patterns ----

CHARACTERS = st.sampled_from(["a", "b", "[a-c]", "[^b]", "[0-9]", "\\.", "é", "(?:ab)", ".", "\\n", "日本", " "])
REPEATED = st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,3}"])
PATTERNS = st.recursive(
    st.builds(str.__add__, CHARACTERS, REPEATED),
    lambda inner: st.one_of(
        st.builds(str.__add__, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, REPEATED),
    ),
    max_leaves=6,
)


@examples(500)
@given(PATTERNS, st.integers(0, 7))
def test_every_finished_text_matches_its_pattern(pattern, seed):
    text = finished_text(following(Grammar.regex(pattern)), seed)
    if text is not None:
        assert re.fullmatch(pattern, text)


# ---- the matcher beside the library's own ----


@examples(100)
@given(st.one_of(SCHEMAS.map(Grammar.json_schema), PATTERNS.map(Grammar.regex)), st.integers(0, 7))
def test_masks_are_those_of_the_library_token_by_token(grammar, seed):
    """However far ahead a matcher looks."""
    ids = drawn(following(grammar), seed, "reference", most=30)
    theirs = llguidance.LLMatcher(VOCABULARY.make((END,)), grammar.rules + NO_FORCING)
    ours = following(grammar).matcher()
    for token in ids:
        assert ours.allowed().tobytes() == theirs.compute_bitmask()
        assert ours.forced == [tokens_of(mask)[0] for mask in ours.masks[:-1]]
        assert all(len(tokens_of(mask)) == 1 for mask in ours.masks[:-1])
        if token != END:
            assert theirs.consume_token(token)
            ours.put(token)


@given(PATTERNS, st.integers(0, 7))
def test_a_copy_goes_its_own_way(pattern, seed):
    grammar = following(Grammar.regex(pattern))
    ids = drawn(grammar, seed, "reference", most=10)
    first = grammar.matcher()
    for token in ids[:-1]:
        twin = first.copy()
        for matcher in (first, twin):
            assert token in tokens_of(matcher.allowed())
            matcher.put(token)
        other = next(iter(tokens_of(twin.allowed())))
        if other != END:
            twin.put(other)
        assert ids[: ids.index(token)] is not None and first.allowed() is not None
    assert ids[-1] in tokens_of(first.allowed())


def test_a_forced_token_is_the_only_one_of_its_mask():
    only = following(Grammar.choice(["xyz"])).matcher()
    only.look_ahead()
    assert text_of(only.forced) == b"xyz"[: len(only.forced)] and len(only.masks) == len(only.forced) + 1
    assert tokens_of(only.masks[-1]) == [END]
    several = following(Grammar.choice(["the book"])).matcher()  # "t" and "the "
    assert len(tokens_of(several.allowed())) == 2 and several.forced == []


def test_not_everything_is_looked_up_at_once():
    matcher, text = following(Grammar.choice(["x" * 100])).matcher(), []
    matcher.look_ahead()
    assert len(matcher.forced) == MOST_FORCED
    while END not in text:
        (token,) = tokens_of(matcher.allowed())
        text.append(token)
        if token != END:
            matcher.put(token)
    assert text_of(text) == b"x" * 100


def test_a_token_that_is_not_allowed():
    matcher = following(Grammar.regex("ab")).matcher()
    matcher.look_ahead()
    with pytest.raises(ValueError, match="token must be one that the grammar allows here, got 7"):
        matcher.put(7)


def test_a_text_that_takes_too_much(monkeypatch):
    """The work and the memory of one text are bounded."""
    monkeypatch.setattr(compiled_grammar, "limits", lambda: llguidance.LLParserLimits(max_lexer_states=60))
    matcher, random = following(Grammar.regex("(a|b)*a(a|b){9}")).matcher(), Random(1)
    with pytest.raises(InvalidGrammar, match=r"grammar: .*states"):
        for _ in range(999):
            matcher.allowed()
            matcher.put(2 + random.choice(b"ab"))


def test_what_a_text_costs_is_its_own(monkeypatch):
    """A text that others have made the library work for ends where it ends alone."""
    monkeypatch.setattr(compiled_grammar, "limits", lambda: llguidance.LLParserLimits(max_lexer_states=60))
    grammar = following(Grammar.regex("(a|b)*a(a|b){9}"))

    def steps(seed: int) -> int:
        matcher, random, count = grammar.matcher(), Random(seed), 0
        while not matcher.problem:
            matcher.look_ahead()
            if not matcher.problem:
                matcher.put(2 + random.choice(b"ab"))
            count += 1
        return count

    alone = [steps(seed) for seed in range(3)]
    assert [steps(seed) for seed in (2, 1, 0)] == alone[::-1] and min(alone) > 5


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(4))
def test_every_backend_draws_the_same_text(seed):
    grammar = following(Grammar.json_schema({"type": "array", "items": {"enum": ["a", "é", 12]}, "maxItems": 3}))
    texts = [drawn(grammar, seed, backend, most=12) for backend in working_backends()]
    assert all(ids == texts[0] for ids in texts)


def test_another_thread_looks_ahead():
    matchers = [following(Grammar.regex(pattern)).matcher() for pattern in ("ab*", "xyz", "[0-9]+")]
    for matcher in matchers:
        matcher.put(next(token for token in tokens_of(matcher.allowed()) if token != END))
    assert [len(matcher.masks) > 0 for matcher in matchers] != [True] * 3
    look_ahead(matchers).result()
    assert all(len(matcher.masks) == len(matcher.forced) + 1 for matcher in matchers)
    assert pool() is pool()
