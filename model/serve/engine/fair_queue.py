"""Who is next: first come, first served for each key, and keys take turns."""

from __future__ import annotations

from collections import OrderedDict, deque

from model.serve.engine.request import Choice


class FairQueue:
    """Choices that wait for a row. A key with a thousand requests delays another key by one at a time."""

    def __init__(self) -> None:
        self.lines: OrderedDict[str, deque[Choice]] = OrderedDict()  # the key whose turn it is comes first
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def put(self, choice: Choice) -> None:
        self.lines.setdefault(choice.request.key, deque()).append(choice)
        self.size += 1

    def first(self) -> Choice:
        return next(iter(self.lines.values()))[0]

    def take(self) -> Choice:
        """Remove and return the first; its key goes to the end."""
        key, line = next(iter(self.lines.items()))
        choice = line.popleft()
        self.lines.move_to_end(key)
        self.shrink(key)
        return choice

    def remove(self, choice: Choice) -> None:
        self.lines[choice.request.key].remove(choice)
        self.shrink(choice.request.key)

    def shrink(self, key: str) -> None:
        self.size -= 1
        if not self.lines[key]:
            del self.lines[key]
