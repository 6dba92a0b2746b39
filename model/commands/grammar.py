"""Options that say what a generated text must be."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from model.commands.arguments import checked_text
from model.commands.prompts import file_text
from samplers.grammar import Grammar, InvalidGrammar

MAKERS: dict[str, Callable[[Any], Grammar]] = {
    "json_schema": Grammar.json_schema,
    "regex": Grammar.regex,
    "choice": Grammar.choice,
    "grammar": Grammar.lark,
}


def add_grammar_arguments(parser: argparse.ArgumentParser) -> None:
    options = parser.add_argument_group(
        "grammar", "what the text must be, from its first token to its end"
    ).add_mutually_exclusive_group()
    options.add_argument(
        "--json-schema", metavar="SCHEMA", help="JSON that is valid under a schema: its text, or a file"
    )
    options.add_argument("--regex", metavar="PATTERN", help="a text that the whole pattern matches")
    options.add_argument("--choice", action="append", metavar="TEXT", help="one of these texts; give it several times")
    options.add_argument("--grammar", metavar="FILE", help="a text of this grammar, in Lark or in llama.cpp's GBNF")


def grammar_source(arguments: argparse.Namespace) -> dict[str, Any]:
    """The option that is given and its value, {} without one; of a file, its text."""
    for name in MAKERS:
        value = getattr(arguments, name)
        if value is None:
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "choice":
            return {name: [checked_text(option, text) for text in value]}
        is_file = name == "grammar" or (name == "json_schema" and not is_json(value))
        return {name: file_text(value, option) if is_file else checked_text(option, value)}
    return {}


def given_grammar(arguments: argparse.Namespace) -> Grammar | None:
    """Raises: ValueError naming the option; RuntimeError without the library."""
    for name, value in grammar_source(arguments).items():
        try:
            return MAKERS[name](value)
        except InvalidGrammar as error:
            raise ValueError(f"--{str(error).replace('_', '-', 1)}") from None
        except ImportError as error:
            raise RuntimeError(str(error)) from None
    return None


def in_requests(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same as the field of a request, {} without one."""
    source = grammar_source(arguments)
    if "json_schema" in source:
        source = {"json": source["json_schema"]}
    return {"structured_outputs": source} if source else {}


def is_json(text: str) -> bool:
    """Whether it is a schema rather than a file's name."""
    return text.lstrip().startswith("{") or text.strip() in ("true", "false")
