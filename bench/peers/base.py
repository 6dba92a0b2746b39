"""The one interface of all contestants: prepare a case, then draw one token a row at every call, as users would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.rows import Case

SEED = 1234

Draw = Callable[[int], Any]  # step -> token ids [B], as a tensor, an array or a list
Contestant = Callable[[Case], Draw]


class Unavailable(Exception):
    """A contestant can't run here, or has no such filter."""
