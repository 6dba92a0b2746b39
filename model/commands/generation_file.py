"""The JSONL file of `alea generate --out`: written as texts come, resumed where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from model import files
from model.commands.terminal import tell

Line = dict[str, Any]


class GenerationFile:
    """`path.part`, in the order of arrival, until every text is written; then `path`, in the order of the prompts.

    The first line of the part holds the settings; a second run resumes only if its own are the same.

    settings: everything a text depends on, the seed included, as JSON values.
    texts: int >= 1, per prompt; a prompt with fewer in the part is generated again.
    any_seed: bool, take the seed of the part if there is one; `settings` then holds it.
    overwrite: bool, replace an existing `path` once the new file is complete; drop a part with other settings.

    Raises: FileExistsError if the file exists; ValueError if its part has other settings; BlockingIOError if another
        process writes the part; FileNotFoundError if the folder is missing.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "texts.jsonl"
    >>> with GenerationFile(path, {"seed": 7}, texts=1) as file:
    ...     file.add(1, [{"text": "b"}])
    >>> with GenerationFile(path, {"seed": 8}, texts=1, any_seed=True) as again:
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
            files.check(path, "--out", overwrite)  # again, now that no other process can finish it
            self.resume(texts, any_seed)
        except BaseException:
            self.part.close()
            raise
        self.done = {line["prompt_number"] for line in self.lines}  # prompts whose texts are all written
        self.where = self.part.path

    def __enter__(self) -> GenerationFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.part.close()

    def resume(self, texts: int, any_seed: bool) -> None:
        """Take over the lines of the part."""
        lines: list[str] = []
        try:
            lines = self.part.read()
            if lines:
                self.settings = self.same_settings(self.parsed(lines[0], "settings", dict)["settings"], any_seed)
                self.lines = whole_prompts([self.parsed(line, "prompt_number", int) for line in lines[1:]], texts)
        except ValueError:
            if not self.overwrite:
                raise
        self.part.keep(lines[: 1 + len(self.lines)] if self.lines else [])

    def same_settings(self, old: Line, any_seed: bool) -> Line:
        """The part's settings. Raises: ValueError naming the differences."""
        wanted = self.settings | {"seed": old.get("seed")} if any_seed else self.settings
        changes = files.differences(old, wanted)
        if changes:
            raise ValueError(f"{self.part.path}: of another run: {changes}: give another --out, or --overwrite")
        return old

    def parsed(self, line: str, key: str, kind: type) -> Line:
        """A line whose first key is this one, which distinguishes the header from a text."""
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
        """Write the file itself, in the order of the prompts."""
        ordered = sorted(self.lines, key=lambda line: line["prompt_number"])  # stable: a prompt's texts stay in order
        files.write(self.path, "".join(f"{as_line(line)}\n" for line in ordered), "--out", self.overwrite)
        self.part.remove()


class GenerationStream:
    """The same for a pipe or a device: the lines as they come, without resuming."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self.file = path, files.stream(path)
        self.settings, self.done, self.where = settings, set[int](), path

    def __enter__(self) -> GenerationStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def add(self, number: int, texts: Sequence[Mapping[str, Any]]) -> None:
        with files.naming(self.path):
            files.write_all(self.file, "".join(f"{as_line(line)}\n" for line in numbered(number, texts)).encode())
        self.done.add(number)

    def finish(self) -> None:
        pass


def opened(
    path: Path, settings: Mapping[str, Any], texts: int, any_seed: bool, overwrite: bool
) -> GenerationFile | GenerationStream:
    """For a file, or for a pipe or a device."""
    if files.is_stream(path):
        return GenerationStream(path, settings)
    return GenerationFile(path, settings, texts, any_seed, overwrite)


def write(
    file: GenerationFile | GenerationStream, prompts: Iterable[tuple[int, Sequence[Mapping[str, Any]]]], total: int
) -> bool:
    """Add each prompt's texts as they come. Returns: whether all are written; after a Ctrl-C, says where to go on."""
    if file.done:
        tell(f"going on after {len(file.done)} of {total} prompts in {file.where}")
    try:
        for number, texts in prompts:
            file.add(number, texts)
    except KeyboardInterrupt:
        advice = "" if file.where == file.path else "; the same command goes on from there"
        tell(f"stopped: {len(file.done)} of {total} prompts are in {file.where}{advice}")
        return False
    file.finish()
    return True


def numbered(number: int, texts: Sequence[Mapping[str, Any]]) -> list[Line]:
    return [{"prompt_number": number, **text} for text in texts]


def as_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def whole_prompts(lines: list[Line], texts: int) -> list[Line]:
    """The first lines, up to a prompt without all of its texts.

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
