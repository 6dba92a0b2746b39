"""What a text must be: a JSON schema, a regular expression, one of several strings, or a grammar."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samplers.grammar.llguidance import library

MOST_CHARACTERS = 1 << 17  # of a source; a schema of this length compiles in seconds at most
MOST_OPTIONAL = 490
SPACING = r" |\r?\n[ \t]{0,20}"  # as most people write JSON
ENABLE = "Enable 'coerce_one_of' option to approximate oneOf with anyOf"  # which can give what two schemas allow
OURS = re.compile(r"^at 1\(8\): (failed to compile JSON schema: |(?=invalid regex))")  # a place in our own rules
GBNF = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)
TEMPERATURE = re.compile(r"^[ \t]*\w+[ \t]*\[[^\]\n]*\btemperature\b", re.MULTILINE)


class InvalidGrammar(ValueError):
    """A grammar that no text can follow, or that the library can't read."""


@dataclass(frozen=True)
class Grammar:
    """What a whole generated text must be, from its first byte to its last. Build one with the class methods.

    kind: "json_schema", "regex", "choice" or "grammar", for messages. source: as it was given, as a text.
    rules: the same in llguidance's dialect of Lark.

    >>> Grammar.regex("[0-9]+")
    Grammar(kind='regex', source='[0-9]+')
    >>> Grammar.choice([])
    Traceback (most recent call last):
    samplers.grammar.grammar.InvalidGrammar: choice must be a list of one or more non-empty strings, got []
    """

    kind: str
    source: str
    rules: str

    def __repr__(self) -> str:
        return f"Grammar(kind={self.kind!r}, source={self.source!r})"

    @classmethod
    def json_schema(
        cls, schema: str | bool | Mapping[str, Any], *, compact: bool = False, whitespace: str | None = None
    ) -> Grammar:
        """JSON that is valid under a schema, given as an object or as its text.

        compact: allow no whitespace between the tokens of JSON. whitespace: a regular expression for what may be there;
        None: a space, or a line break with an indent, since some models would not end what is unbounded.
        """
        value = read_json(schema) if isinstance(schema, str) else schema
        if not isinstance(value, (bool, Mapping)):
            raise InvalidGrammar(f"json_schema must be a JSON object, true or false, got {str(value)[:40]!r}")
        if compact and whitespace is not None:
            raise InvalidGrammar("json_schema must be compact or have a pattern for its whitespace, not both")
        source = dump("json_schema", value)
        check_optional(value)
        options = {"whitespace_flexible": False} if compact else {"whitespace_pattern": whitespace or SPACING}
        value = {"allOf": [value]} if isinstance(value, bool) else value
        given = value.get("x-guidance", {})
        if not isinstance(given, Mapping):
            raise InvalidGrammar(f"json_schema must have an object as its x-guidance, got {str(given)[:40]!r}")
        value = {**value, "x-guidance": {**options, **given}}
        return cls("json_schema", checked_length("json_schema", source), f"start: %json {dump('json_schema', value)}")

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """A text that the whole pattern matches, as `re.fullmatch`; without anchors, look-around, back-references."""
        source = checked_text("regex", pattern)
        made = json.loads(library().LLMatcher.grammar_from_regex(source))
        return cls("regex", source, made["grammars"][0]["lark_grammar"])

    @classmethod
    def choice(cls, options: Sequence[str]) -> Grammar:
        """One of these strings."""
        is_list = isinstance(options, Sequence) and not isinstance(options, str)
        if not is_list or not options or not all(isinstance(one, str) and one for one in options):
            raise InvalidGrammar(f"choice must be a list of one or more non-empty strings, got {options!r}")
        literals = [json.dumps(checked_text("choice", one), ensure_ascii=False) for one in options]
        return cls("choice", checked_length("choice", json.dumps(options)), "start: " + " | ".join(literals))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A text of a context-free grammar in llguidance's dialect of Lark, or in llama.cpp's GBNF."""
        source = rules = checked_text("grammar", text)
        if GBNF.search(source):
            try:
                rules = library("llguidance.gbnf_to_lark").gbnf_to_lark(source)
            except Exception as error:  # of many kinds
                raise InvalidGrammar(f"grammar can't be read: {shortened(str(error))}") from None
        if TEMPERATURE.search(rules):
            raise InvalidGrammar("grammar must not set a temperature: that is a parameter of sampling")
        return cls("grammar", source, rules)


def read_json(text: str) -> Any:
    try:
        return json.loads(checked_length("json_schema", text))
    except (ValueError, RecursionError) as error:
        raise InvalidGrammar(f"json_schema must be JSON: {error}") from None


def dump(kind: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidGrammar(f"{kind} must be JSON: {error}") from None


def check_optional(schema: Any) -> None:
    """Raises: InvalidGrammar for an object with more optional properties than the library finds tokens for.

    It would find that out itself, after a time that grows with the square of their number.
    """
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        properties = value.get("properties") if isinstance(value, dict) else None
        if isinstance(properties, dict) and len(properties) > MOST_OPTIONAL:
            required = value.get("required")
            optional = len(properties.keys() - set(map(str, required if isinstance(required, list) else ())))
            if optional > MOST_OPTIONAL:
                raise InvalidGrammar(
                    f"json_schema must have at most {MOST_OPTIONAL} optional properties in an object, got {optional}"
                )


def checked_text(kind: str, text: Any) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidGrammar(f"{kind} must be a non-empty text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidGrammar(f"{kind} must be valid Unicode, got a lone surrogate in {text[:40]!r}") from None
    return checked_length(kind, text)


def checked_length(kind: str, source: str) -> str:
    if len(source) > MOST_CHARACTERS:
        raise InvalidGrammar(f"{kind} must have at most {MOST_CHARACTERS} characters, got {len(source)}")
    return source


def explained(problem: str) -> str:
    """Why the library can't follow a grammar, without its excerpt of the source, which may be ours."""
    if problem.startswith("NoExtension"):
        return "no text follows it from here"
    message = OURS.sub("", problem.split("\n   1 |")[0])
    return shortened(message.replace(ENABLE, "use anyOf"))


def shortened(message: str) -> str:
    """As one line."""
    return " ".join(message.replace("<non-verbose/>", "").split())[:300]
