"""Ends a text at a string, even if the string spans several tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string; holds back text that may be the start of one.

    >>> stop = StopStrings(["END"])
    >>> stop.put("The E"), stop.put("lf. EN"), stop.put("D of it"), stop.found
    ('The ', 'Elf. ', '', True)
    """

    def __init__(self, strings: Sequence[str] = ()) -> None:
        self.strings = tuple(strings)
        self.held = ""
        self.found = False

    def put(self, text: str) -> str:
        """The text that may be shown now."""
        text = self.held + text
        starts = [at for at in (text.find(s) for s in self.strings) if at >= 0]
        self.found = self.found or bool(starts)
        if self.found:
            self.held = ""
            return text[: min(starts)] if starts else ""
        shown = len(text) - self._possible_start(text)
        self.held = text[shown:]
        return text[:shown]

    def end(self) -> str:
        """The text held back, once no stop string can follow."""
        text, self.held = self.held, ""
        return text

    def _possible_start(self, text: str) -> int:
        """Length of the longest suffix of the text that begins a stop string."""
        longest = min(len(text), max((len(s) for s in self.strings), default=1) - 1)
        return next((n for n in range(longest, 0, -1) if any(s.startswith(text[-n:]) for s in self.strings)), 0)
