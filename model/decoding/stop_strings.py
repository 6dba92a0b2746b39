"""Ends a text at a string, even if the string spans several tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string; holds back text that may be the start of one.

    includes: whether the stop string is passed on as well.

    >>> stop = StopStrings(["END"])
    >>> stop.put("The E"), stop.put("lf. EN"), stop.put("D of it"), stop.found
    ('The ', 'Elf. ', '', True)
    """

    def __init__(self, strings: Sequence[str] = (), includes: bool = False) -> None:
        self.strings, self.includes = tuple(strings), includes
        self.held = self.string = ""  # string: that was found
        self.found = False

    def put(self, text: str) -> str:
        """The text that may be shown now."""
        if not self.strings:
            return text
        text = self.held + text
        if self.found:
            return ""
        starts = [(at, s) for at, s in ((text.find(s), s) for s in self.strings) if at >= 0]
        if starts:
            self.found, self.held = True, ""
            at, self.string = min(starts)
            return text[: at + len(self.string) * self.includes]
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
