"""What an engine tells of its work, for metrics."""

from __future__ import annotations

from model.serve.engine.request import Choice, Request


class Observer:
    """Hears of everything and does nothing; a subclass counts. Called in the engine's thread."""

    def began(self, choice: Choice, reused: int) -> None:
        """The model begins with a prompt, of which `reused` tokens need not be read."""

    def read_prompts(self, tokens: int) -> None:
        """A pass of the model has read so many prompt tokens."""

    def drew(self, choices: list[Choice], now: float) -> None:
        """Each has another token, several if it occurs several times; its last_token_at is the time of those before."""

    def ended(self, choice: Choice) -> None:
        """A choice has its finish_reason."""

    def request_ended(self, request: Request) -> None:
        """All its choices have, or it failed."""
