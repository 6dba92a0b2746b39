"""A JSONL file of continuations that is written as they come and goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model import files

Line = dict[str, Any]


class AnswerFile:
    """`path` when all is there, in the order of the prompts; until then `path.part`, in the order of arrival.

    The first line of the part holds the settings, so that a second run knows whether it goes on with the same.

    settings: what every text hangs on, fit for JSON, the seed among them.
    texts: int >= 1, how many belong to a prompt; a prompt with fewer in the part is done again.
    any_seed: bool, go on with the seed of the part, where there is one; `settings` then tells it.
    overwrite: bool, replace `path` where it is there, when all is there to replace it; drop a part of other settings.

    Raises: FileExistsError where the file is there already; ValueError where its part is of other settings;
        BlockingIOError where another process writes the part; FileNotFoundError where the folder is missing.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
    >>> with AnswerFile(path, {"seed": 7}, texts=1) as file:
    ...     file.add(1, [{"text": "b"}])
    >>> with AnswerFile(path, {"seed": 8}, texts=1, any_seed=True) as again:
    ...     print(again.done, again.settings)
    ...     again.add(0, [{"text": "a"}])
    ...     again.finish()
    {1} {'seed': 7}
    >>> print(path.read_text(), end="")
    {"prompt_number": 0, "text": "a"}
    {"prompt_number": 1, "text": "b"}
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], texts: int, any_seed: bool = False, overwrite: bool = False
    ) -> None:
        self.path, self.overwrite = path, overwrite
        self.settings, self.lines = dict(settings), list[Line]()
        self.part = files.Lines(path.with_name(path.name + ".part"))
        try:
            files.check(path, "--out", overwrite)  # again, now that nobody else can finish it
            self.go_on(texts, any_seed)
        except BaseException:
            self.part.close()
            raise
        self.done = {line["prompt_number"] for line in self.lines}  # the prompts whose texts are all there
        self.where = self.part.path  # they are

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.part.close()

    def go_on(self, texts: int, any_seed: bool) -> None:
        """With what the part holds."""
        there: list[str] = []
        try:
            there = self.part.read()
            if there:
                self.settings = self.same_settings(self.parsed(there[0], "settings", dict)["settings"], any_seed)
                self.lines = whole_prompts([self.parsed(line, "prompt_number", int) for line in there[1:]], texts)
        except ValueError:
            if not self.overwrite:
                raise
        self.part.keep(there[: 1 + len(self.lines)] if self.lines else [])

    def same_settings(self, there: Line, any_seed: bool) -> Line:
        """Those of the part. Raises: ValueError naming what is other than wanted."""
        wanted = self.settings | {"seed": there.get("seed")} if any_seed else self.settings
        changes = files.differences(there, wanted)
        if changes:
            raise ValueError(f"{self.part.path}: of another run: {changes}: give another --out, or --overwrite")
        return there

    def parsed(self, line: str, key: str, kind: type) -> Line:
        """A line that begins with this key, which tells the header from an answer."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict) or next(iter(value), None) != key or not isinstance(value[key], kind):
            wanted = f"{self.part.path}: must be written by alea generate"
            raise ValueError(f"{wanted}, got {line[:40]!r}: delete it, or --overwrite")
        return value

    def add(self, number: int, texts: Sequence[Mapping[str, Any]]) -> None:
        """All texts of a prompt, in one write."""
        header = [] if self.lines else [{"settings": self.settings}]
        lines = numbered(number, texts)
        self.part.add(map(as_line, [*header, *lines]))
        self.lines += lines
        self.done.add(number)

    def finish(self) -> None:
        """Every prompt is there: the file itself, in their order."""
        ordered = sorted(self.lines, key=lambda line: line["prompt_number"])  # stable: a prompt's texts stay in order
        files.write(self.path, "".join(f"{as_line(line)}\n" for line in ordered), "--out", self.overwrite)
        self.part.remove()


class AnswerStream:
    """The same for a pipe or a device, which nothing can go on from: the lines as they come."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.file = path, files.stream(path)
        self.settings, self.done, self.where = settings, set[int](), path

    def __enter__(self) -> AnswerStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, number: int, texts: Sequence[Mapping[str, Any]]) -> None:
        with files.naming(self.path):
            files.write_all(self.file, "".join(f"{as_line(line)}\n" for line in numbered(number, texts)).encode())
        self.done.add(number)

    def finish(self) -> None:
        pass


def numbered(number: int, texts: Sequence[Mapping[str, Any]]) -> list[Line]:
    return [{"prompt_number": number, **text} for text in texts]


def as_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def whole_prompts(lines: list[Line], texts: int) -> list[Line]:
    """The first lines, up to a prompt that lacks some of its texts: it was cut off between two.

    >>> whole_prompts([{"prompt_number": number} for number in (3, 3, 0, 0, 1)], 2)
    [{'prompt_number': 3}, {'prompt_number': 3}, {'prompt_number': 0}, {'prompt_number': 0}]
    """
    done: set[int] = set()
    for start in range(0, len(lines), texts):
        numbers = [line["prompt_number"] for line in lines[start : start + texts]]
        if numbers != numbers[:1] * texts or numbers[0] in done:
            return lines[:start]
        done.add(numbers[0])
    return lines
