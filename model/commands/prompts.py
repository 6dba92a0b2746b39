"""A command's prompts: from options, a file of text or JSONL, or standard input."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from model.commands.arguments import checked_text
from model.untrusted import shown


def add_prompt_arguments(parser: argparse.ArgumentParser, more: str = "") -> argparse._ArgumentGroup:
    """more: that a line of JSONL may hold, for the help."""
    prompts = parser.add_argument_group("prompts", "given here, or else read from standard input, one a line")
    prompts.add_argument("-p", "--prompt", action="append", metavar="TEXT", help="may be given several times")
    prompts.add_argument(
        "-f",
        "--file",
        "--prompt-file",
        metavar="FILE",
        help=f'one prompt a line, or *.jsonl with {{"prompt": TEXT}} in each{more}; - is standard input',
    )
    return prompts


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    """The prompts of the options, then those of the file; blank lines are skipped.

    Raises: ValueError where there is no prompt, the file is no text, or a line of JSONL is no prompt alone.
    """
    prompts = [checked_text("--prompt", prompt) for prompt in arguments.prompt or ()]
    name = arguments.file if arguments.file is not None or prompts else "-"
    if name is not None:
        if name == "-" and sys.stdin is not None and sys.stdin.isatty():
            print(f"alea {arguments.command}: type a prompt, end with Ctrl-D", file=sys.stderr)
        found = file_prompts(name)
        prompts += found
        if not found and arguments.file is not None:
            raise ValueError(f"--file must hold a prompt, one a line, got none in {name}")
    if not prompts:
        raise ValueError("a prompt is needed: -p TEXT, -f FILE, or lines on standard input; got none")
    return prompts


def file_prompts(name: str) -> list[str]:
    found = [(f"--file {name} line {number}", line) for number, line in lines(file_text(name))]
    if name.endswith(".jsonl"):
        found = [(where, jsonl_prompt(where, line)) for where, line in found]
    return [checked_text(where, prompt) for where, prompt in found]


def lines(text: str) -> list[tuple[int, str]]:
    """(number, line) of all lines that are not blank; numbers from 1."""
    numbered = enumerate(text.replace("\r\n", "\n").split("\n"), 1)
    return [(number, line) for number, line in numbered if line.strip()]


def jsonl_prompt(where: str, line: str) -> str:
    """The line's "prompt". Any other key is refused, because it would be ignored."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    prompt = value.pop("prompt", None) if isinstance(value, dict) else None
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f'{where}: must be an object with a text "prompt", got {shown(line)}')
    if value:
        raise ValueError(f'{where}: must hold "prompt" alone, got also {", ".join(map(shown, list(value)[:10]))}')
    return prompt


def file_text(name: str, option: str = "--file") -> str:
    """What a file holds. Raises: ValueError naming the option."""
    try:
        if name == "-":
            return sys.stdin.read() if sys.stdin is not None else ""
        return Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{option} must be UTF-8 text, got {name} ({error})") from None
    except OSError as error:
        raise ValueError(
            f"{option} must be a text file, or - for standard input, got {name}: {error.strerror}"
        ) from None
