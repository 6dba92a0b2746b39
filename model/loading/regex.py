"""Matches untrusted regular expressions in bounded time.

`re` tries the paths through an expression one after the other, and (a+)+b has 2^n paths through n characters. This
matcher follows all paths at once: from the set of positions where a part may begin to the set of positions where it may
end (Thompson 1968).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from functools import lru_cache
from typing import Any

from model.untrusted import shown

Matcher = Callable[[str, Set[int]], Set[int]]  # (text, starts) -> ends of all matches from these starts
LONGEST = 500  # characters of an expression
BRANCHING = set("*+?{|(")  # without these characters `re` has a single path
parser: Any = getattr(re, "_parser", None) or re.sre_parse  # type: ignore[attr-defined]  # Python 3.10
compiler: Any = getattr(re, "_compiler", None) or re.sre_compile  # type: ignore[attr-defined]


def fullmatch(pattern: str, text: str) -> bool:
    """As `re.fullmatch`.

    Raises: ValueError if the expression is invalid, has more than 500 characters, or has a back-reference, a
    condition, an atomic group or a group with flags.

    >>> fullmatch(r".*\\.(q|v)_proj", "layers.0.q_proj"), fullmatch("(a+)+b", "a" * 99)
    (True, False)
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"a regex must have at most {LONGEST} characters, got {shown(pattern)}")
    try:
        if BRANCHING.isdisjoint(pattern):
            return re.fullmatch(pattern, text) is not None
        return len(text) in compiled(pattern)(text, {0})
    except (re.error, OverflowError, RecursionError) as error:  # a repeat of 2^32 or more; deeply nested groups
        raise ValueError(f"the regex {shown(pattern)} is not valid: {shown(str(error))}") from None


@lru_cache(maxsize=1000)
def compiled(pattern: str) -> Matcher:
    return sequence(parser.parse(pattern))


def sequence(tree: Any) -> Matcher:
    """Matches the nodes of a tree one after the other; tree: from `re`'s parser."""
    matchers = [node(tree[i : i + 1]) for i in range(len(tree))]

    def match(text: str, starts: Set[int]) -> Set[int]:
        for matcher in matchers:
            starts = matcher(text, starts)
        return starts

    return match


def node(tree: Any) -> Matcher:
    """Matches a tree of one node."""
    ((kind, value),) = tree
    if kind in (parser.LITERAL, parser.NOT_LITERAL, parser.ANY, parser.IN, parser.AT):
        return single(compiler.compile(tree))
    if kind in (parser.MAX_REPEAT, parser.MIN_REPEAT):
        least, most, body = value
        return repeated(sequence(body), least, most)
    if kind is parser.BRANCH:
        branches = [sequence(branch) for branch in value[1]]
        return lambda text, starts: {end for branch in branches for end in branch(text, starts)}
    if kind is parser.SUBPATTERN and not any(value[1:3]):  # flags that the group switches on or off
        return sequence(value[3])
    if kind in (parser.ASSERT, parser.ASSERT_NOT):
        direction, body = value
        return lookaround(sequence(body), behind=direction < 0, wanted=kind is parser.ASSERT)
    raise re.error(f"{str(kind).lower()} is not supported")


def single(pattern: re.Pattern[str]) -> Matcher:
    """One character, or a condition such as ^ or \\b on its neighbours."""
    return lambda text, starts: {match.end() for start in starts if (match := pattern.match(text, start))}


def repeated(body: Matcher, least: int, most: int) -> Matcher:
    ends_from = cached(body)

    def match(text: str, starts: Set[int]) -> Set[int]:
        rounds = len(text) + 1  # more rounds reach no new position
        for _ in range(min(least, rounds)):
            starts = {end for start in starts for end in ends_from(text, start)}
        ends = set(starts)
        for _ in range(min(most - least, rounds)):
            starts = {end for start in starts for end in ends_from(text, start)} - ends
            ends |= starts
        return ends

    return match


def lookaround(body: Matcher, behind: bool, wanted: bool) -> Matcher:
    """A condition on the text after a position, or before it."""
    ends_from = cached(body)

    def holds(text: str, position: int) -> bool:
        if behind:
            return any(position in ends_from(text, start) for start in range(position + 1))
        return bool(ends_from(text, position))

    return lambda text, starts: {start for start in starts if holds(text, start) == wanted}


def cached(body: Matcher) -> Callable[[str, int], Set[int]]:
    """The ends of all matches from one position, computed once for each position."""
    return lru_cache(maxsize=1000)(lambda text, start: body(text, {start}))
