"""Whether a stranger's regular expression matches, in a time that none can make long.

`re` tries one way through an expression after the other, and (a+)+b has 2^n of them in n characters. Here all ways are
followed at once: from the places where a part may begin to all places where it may end (Thompson 1968).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import lru_cache
from typing import Any

from model.untrusted import shown

Step = Callable[[str, Set[int]], Set[int]]  # (text, places) -> where a match may end that begins at one of them
LONGEST = 500  # characters of an expression
CHOICES = set("*+?{|(")  # without one of these there is one way through it
parser: Any = getattr(re, "_parser", None) or re.sre_parse  # type: ignore[attr-defined]  # so until Python 3.10
compiler: Any = getattr(re, "_compiler", None) or re.sre_compile  # type: ignore[attr-defined]


def fullmatch(pattern: str, text: str) -> bool:
    """As `re.fullmatch`.

    Raises: ValueError for an invalid expression, one of more than 500 characters, and one with a back-reference, a
    condition, an atomic group or flags of a group.

    >>> fullmatch(r".*\\.(q|v)_proj", "layers.0.q_proj"), fullmatch("(a+)+b", "a" * 99)
    (True, False)
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"a regex must have at most {LONGEST} characters, got {shown(pattern)}")
    try:
        if CHOICES.isdisjoint(pattern):
            return re.fullmatch(pattern, text) is not None
        return len(text) in compiled(pattern)(text, {0})
    except (re.error, OverflowError, RecursionError) as error:  # a repeat of 2^32 or more; groups within groups
        raise ValueError(f"the regex {shown(pattern)} is not valid: {shown(str(error))}") from None


@lru_cache(maxsize=1000)
def compiled(pattern: str) -> Step:
    return sequence(parser.parse(pattern))


def sequence(tree: Any) -> Step:
    """One part after the other; tree: what `re` parses an expression to."""
    parts = [part(tree[i : i + 1]) for i in range(len(tree))]

    def step(text: str, places: Set[int]) -> Set[int]:
        for each in parts:
            places = each(text, places)
        return places

    return step


def part(tree: Any) -> Step:
    """A tree of one node."""
    ((kind, value),) = tree
    if kind in (parser.LITERAL, parser.NOT_LITERAL, parser.ANY, parser.IN, parser.AT):
        return character(compiler.compile(tree))
    if kind in (parser.MAX_REPEAT, parser.MIN_REPEAT):
        least, most, body = value
        return repeated(sequence(body), least, most)
    if kind is parser.BRANCH:
        branches = [sequence(branch) for branch in value[1]]
        return lambda text, places: {end for branch in branches for end in branch(text, places)}
    if kind is parser.SUBPATTERN and not any(value[1:3]):  # flags that it switches on, and off
        return sequence(value[3])
    if kind in (parser.ASSERT, parser.ASSERT_NOT):
        direction, body = value
        return look(sequence(body), behind=direction < 0, wanted=kind is parser.ASSERT)
    raise re.error(f"{str(kind).lower()} is not supported")


def character(one: re.Pattern[str]) -> Step:
    """A character, or a condition on those beside the place."""
    return lambda text, places: {match.end() for place in places if (match := one.match(text, place))}


def repeated(body: Step, least: int, most: int) -> Step:
    ends = from_each(body)

    def step(text: str, places: Set[int]) -> Set[int]:
        rounds = len(text) + 1  # more of them reach no other place
        for _ in range(min(least, rounds)):
            places = {end for place in places for end in ends(text, place)}
        found = set(places)
        for _ in range(min(most - least, rounds)):
            places = {end for place in places for end in ends(text, place)} - found
            found |= places
        return found

    return step


def look(body: Step, behind: bool, wanted: bool) -> Step:
    """A condition on what follows the place, or ends there."""
    ends = from_each(body)

    def holds(text: str, place: int) -> bool:
        return any(place in ends(text, start) for start in range(place + 1)) if behind else bool(ends(text, place))

    return lambda text, places: {place for place in places if holds(text, place) == wanted}


def from_each(body: Step) -> Callable[[str, int], Set[int]]:
    """Where the body may end that begins at a place; it is tried there once, however often it is asked for."""
    return lru_cache(maxsize=1000)(lambda text, place: body(text, {place}))
