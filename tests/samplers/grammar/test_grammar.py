"""What a grammar accepts, by tokens in any split of its texts, and what is refused by name."""

import re

import pytest

from samplers.grammar import Grammar, InvalidGrammar, compiled
from tests.samplers.grammar.vocabularies import END, TOKENS, VOCABULARY, following, tokens_of


def accepts(grammar: Grammar, text: str) -> bool:
    """Byte by byte, so in the split that no tokenizer would choose."""
    matcher = following(grammar).matcher()
    for token in [*(2 + byte for byte in text.encode()), END]:
        if token not in tokens_of(matcher.allowed()):
            return False
        if token != END:
            matcher.put(token)
    return True


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
LARK = 'start: "(" start ")" | "x"'
GBNF = 'root ::= "yes" | "no" [0-9]+'


@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        (Grammar.json_schema(SCHEMA), ['{"a":1}', '{ "a" :\n-12 }'], ["{}", '{"a":1.5}', '{"a":1,"b":2}', "1"]),
        (Grammar.json_schema(SCHEMA, compact=True), ['{"a":1}'], ['{"a": 1}', ' {"a":1}']),
        (Grammar.json_schema(SCHEMA, whitespace=" "), ['{"a": 1}', '{ "a":1}'], ['{"a":  1}', '{"a":\n1}']),
        (Grammar.json_schema('{"enum": ["é", 1, null]}'), ['"é"', "1", "null"], ['"e"', "2", "true"]),
        (Grammar.json_schema(True, compact=True), ['[1,{"b":[]}]', "true"], ["[1, 2]", "tru"]),
        (Grammar.regex("a(b|c)*d?"), ["a", "abcbd"], ["", "ad ", "b", "dabc"]),
        (Grammar.regex("^a$"), ["a"], ["^a$", "aa"]),
        (Grammar.regex("[/\\\\]"), ["/", "\\"], ["a"]),
        (Grammar.choice(["yes", "no", "yes indeed"]), ["yes", "no", "yes indeed"], ["ye", "yes ", "yesno"]),
        (
            Grammar.choice(['a"b\n', "\\d", "日本", "\x00", "\u2028"]),
            ['a"b\n', "\\d", "日本", "\x00", "\u2028"],
            ["7", "日"],
        ),
        (Grammar.lark(LARK), ["x", "((x))"], ["()", "((x)", "x)"]),
        (Grammar.lark(GBNF), ["yes", "no12"], ["no", "yes1"]),
        (Grammar.lark('start: A "::=" A // as in BNF\nA: /[a-z]+/'), ["a::=b"], ["a:=b"]),
    ],
)
def test_what_it_accepts(grammar, right, wrong):
    assert [text for text in right if not accepts(grammar, text)] == []
    assert [text for text in wrong if accepts(grammar, text)] == []


def deep(levels: int) -> dict:
    return {"type": "array", "items": deep(levels - 1)} if levels else {"type": "null"}


REFUSED = [
    (lambda: Grammar.json_schema('{"type":'), "json_schema must be JSON: Expecting value"),
    (lambda: Grammar.json_schema("[1]"), "json_schema must be a JSON object, true or false, got '\\[1\\]'"),
    (lambda: Grammar.json_schema({"const": float("nan")}), "json_schema must be JSON"),
    (lambda: Grammar.json_schema({"type": "sound"}), "json_schema can't be followed: Invalid type: sound"),
    (lambda: Grammar.json_schema({"type": "array", "uniqueItems": True}), 'Unimplemented keys: \\["uniqueItems"\\]'),
    (lambda: Grammar.json_schema({"oneOf": [{"minimum": 1}, {"maximum": 5}]}), "oneOf .* use anyOf$"),
    (
        lambda: Grammar.json_schema({"$ref": "https://example.com/schema"}),
        "json_schema can't be followed: .*example.com",
    ),
    (lambda: Grammar.json_schema({"$ref": "#"}), "no text follows it"),
    (lambda: Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), "json_schema can't be followed"),
    (lambda: Grammar.json_schema({"properties": {"a": False}, "required": ["a"], "type": "object"}), "unsatisfiable"),
    (lambda: Grammar.json_schema(deep(300)), "recursion limit"),
    (
        lambda: Grammar.json_schema({"enum": ["x" * 200_000]}),
        "json_schema must have at most 131072 characters, got 200",
    ),
    (lambda: Grammar.json_schema({"properties": {f"a{i}": {} for i in range(9000)}}), "490 optional .*, got 9000"),
    (lambda: Grammar.json_schema({"properties": {f"a{i}": {} for i in range(600)}, "required": 7}), "optional"),
    (lambda: Grammar.json_schema("[" * 100_000), "json_schema must be JSON"),
    (lambda: Grammar.json_schema({"x-guidance": 7}), "json_schema must have an object as its x-guidance, got '7'"),
    (lambda: Grammar.json_schema({}, compact=True, whitespace=" "), "not both"),
    (lambda: Grammar.regex(""), "regex must be a non-empty text, got ''"),
    (lambda: Grammar.regex("("), "regex can't be followed: invalid regex .*unclosed group"),
    (lambda: Grammar.regex("(?=a)b"), "look-around"),
    (lambda: Grammar.regex("(a)\\1"), "backreferences"),
    (lambda: Grammar.regex("[^\\s\\S]"), "regex can't be followed: no text follows it"),
    (lambda: Grammar.regex("\ud800"), "regex must be valid Unicode"),
    (lambda: Grammar.choice([]), "choice must be a list of one or more non-empty strings"),
    (lambda: Grammar.choice("yes"), "choice must be a list"),
    (lambda: Grammar.choice(["a", ""]), "choice must be a list"),
    (lambda: Grammar.lark("start: a"), 'grammar can\'t be followed: at 1\\(8\\): unknown name: "a"'),
    (lambda: Grammar.lark("rule: /a/"), "no start rule"),
    (lambda: Grammar.lark('root ::= "a'), "grammar can't be read: .*line 1"),
    (lambda: Grammar.lark("start[temperature=0.5]: /a/"), "temperature: that is a parameter of sampling"),
    (lambda: Grammar.lark(7), "grammar must be a non-empty text, got 7"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_can_not_be_followed_is_refused_by_name(make, message):
    with pytest.raises(InvalidGrammar, match=message) as error:
        compiled(make(), VOCABULARY, [END])
    assert re.match("json_schema|regex|choice|grammar", str(error.value)) and "\n" not in str(error.value)
    assert "no_forcing" not in str(error.value) and len(str(error.value)) < 400


def test_many_properties():
    names = [f"a{i}" for i in range(700)]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}, "required": names[:300]}
    following(Grammar.json_schema(schema))
    following(Grammar.json_schema(schema | {"properties": {name: {} for name in names[:480]}, "required": []}))


def test_without_an_id_that_ends_a_text():
    with pytest.raises(InvalidGrammar, match="grammar needs an id that ends a text"):
        compiled(Grammar.regex("a"), VOCABULARY, [])


def test_without_the_library(monkeypatch):
    import sys

    from samplers.grammar.llguidance import library

    library.cache_clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ImportError, match=r"a grammar needs llguidance: pip install 'alea-sampling\[grammar\]'"):
        Grammar.regex("a")
    library.cache_clear()


def test_a_text_without_the_vocabulary_for_it():
    small = type(VOCABULARY).of_bytes([*TOKENS[:2], b"a", b"b"], special=[0, 1])
    with pytest.raises(InvalidGrammar, match="no text follows it"):
        compiled(Grammar.choice(["xa"]), small, [END])
    matcher = compiled(Grammar.choice(["xa", "ba"]), small, [END]).matcher()
    matcher.look_ahead()
    assert matcher.forced == [3, 2]
