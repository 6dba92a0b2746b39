"""A JSONL file of continuations that is written as they come and goes on where it was stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from model import files


class AnswerFile:
    """`path` when all is there, in the order of the prompts; until then `path.part`, in the order of arrival.

    The first line of the part holds the settings, so that a second run knows whether it goes on with the same.

    settings: what every text hangs on, fit for JSON, the seed among them.
    texts: int >= 1, how many belong to a prompt; a prompt with fewer in the part is done again.
    any_seed: bool, go on with the seed of the part, where there is one; `settings` then tells it.

    Raises: ValueError where the file is there already, or its part is of other settings; FileNotFoundError where its
        folder is missing.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
    >>> file = AnswerFile(path, {"seed": 7}, texts=1)
    >>> file.add(1, [{"text": "b"}])
    >>> again = AnswerFile(path, {"seed": 8}, texts=1, any_seed=True)
    >>> again.done, again.settings
    ({1}, {'seed': 7})
    >>> again.add(0, [{"text": "a"}])
    >>> again.finish()
    >>> print(path.read_text(), end="")
    {"prompt_number": 0, "text": "a"}
    {"prompt_number": 1, "text": "b"}
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], texts: int, any_seed: bool = False) -> None:
        if path.exists():
            raise ValueError(f"--out must be a new file, got {path}, which is there already: delete it")
        if not path.parent.is_dir():
            raise FileNotFoundError(f"{path.parent}: no such folder; --out {path.name} needs one that exists")
        self.path, self.part = path, path.with_name(path.name + ".part")
        header, *lines = files.whole_lines(self.part) or [json.dumps(dict(settings), ensure_ascii=False)]
        self.settings = self.same_settings(self.parsed(header), settings, any_seed)
        self.lines = complete([self.parsed(line, "prompt_number") for line in lines], texts)
        self.done = {line["prompt_number"] for line in self.lines}  # the prompts whose texts are all there
        kept = [json.dumps(self.settings, ensure_ascii=False), *map(as_line, self.lines)]
        files.replace(self.part, "".join(f"{line}\n" for line in kept))

    def add(self, number: int, texts: Sequence[Mapping[str, Any]]) -> None:
        """All texts of a prompt, in one write."""
        lines = [{"prompt_number": number, **text} for text in texts]
        files.append(self.part, "".join(f"{as_line(line)}\n" for line in lines))
        self.lines += lines
        self.done.add(number)

    def finish(self) -> None:
        """Every prompt is there: the file itself, in their order."""
        ordered = sorted(self.lines, key=lambda line: line["prompt_number"])  # stable: a prompt's texts stay in order
        files.replace(self.path, "".join(f"{as_line(line)}\n" for line in ordered))
        self.part.unlink()

    def give_up(self) -> None:
        """After an error: no part stays where nothing was drawn."""
        if not self.lines:
            self.part.unlink(missing_ok=True)

    def same_settings(self, there: dict[str, Any], wanted: Mapping[str, Any], any_seed: bool) -> dict[str, Any]:
        """Those of the part. Raises: ValueError naming what is other than wanted."""
        changes = files.differences(there, {**wanted, "seed": there["seed"]} if any_seed else wanted)
        if changes:
            raise ValueError(f"{self.part}: of another run: {changes}: delete it, or give another --out")
        return there

    def parsed(self, line: str, key: str = "seed") -> dict[str, Any]:
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{self.part}: must be written by alea generate, got {line[:40]!r}: delete it")
        return value


def as_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def complete(lines: list[dict[str, Any]], texts: int) -> list[dict[str, Any]]:
    """The lines of prompts that have all their texts; the last may have been cut off between two."""
    held = Counter(line["prompt_number"] for line in lines)
    return [line for line in lines if held[line["prompt_number"]] == texts]
