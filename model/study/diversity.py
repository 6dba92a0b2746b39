"""How much texts repeat each other and themselves: Self-BLEU and distinct-n."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from samplers.extras import how_to_install


def self_bleu(texts: Sequence[str]) -> float:
    """How much each text resembles all the others: 100 where they are equal, 0 where they share no word.

    The mean over texts of `sacrebleu.sentence_bleu(text, all other texts)`: BLEU-4, 13a words, exponential smoothing,
    effective order. Every text is once the hypothesis, so no order of the texts counts; its value grows with their
    number, so only equal numbers compare.

    Args:
        texts: two or more.
    Returns: 0 .. 100; less is more diverse.
    Raises: ValueError for fewer than two texts; RuntimeError where sacrebleu is missing.
    Source: Zhu et al. 2018 (Texygen); BLEU as in Post 2018 (sacrebleu).

    >>> self_bleu(["the cat sat on the mat"] * 3), self_bleu(["the cat sat", "a dog ran"])
    (100.0, 0.0)
    """
    if len(texts) < 2:
        raise ValueError(f"texts must be two or more, to compare each with the others, got {len(texts)}")
    sentence_bleu = bleu()  # before the short cut, so that a missing package does not wait for unequal texts
    if len(set(texts)) == 1:
        return 100.0  # also of empty texts; and rounding leaves sacrebleu's own 100 at 100.00000000000004
    scores = [sentence_bleu(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
    return min(sum(scores) / len(scores), 100.0)


def bleu() -> Callable[..., Any]:
    """`sacrebleu.sentence_bleu`; RuntimeError that says how to get it where it is missing."""
    try:
        from sacrebleu import sentence_bleu
    except ImportError:
        raise RuntimeError(f"Self-BLEU needs sacrebleu: {how_to_install('study')}") from None
    return sentence_bleu


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words over all n-grams of all texts: low where texts repeat themselves or each other.

    Words are what blanks divide. The paper divides by the number of words; its users, and this, by that of n-grams,
    which gives texts without any repetition 1 for every n.

    Args:
        texts: any number; no n-gram spans two of them.
        n: int >= 1.
    Returns: 0 .. 1; 0 where no text has n words.
    Raises: ValueError for n below 1.
    Source: Li et al. 2016 (A Diversity-Promoting Objective Function).

    >>> distinct_n(["a b a b", "a c"], 1), distinct_n(["a b a b", "a c"], 2)
    (0.5, 0.75)
    """
    if n < 1:
        raise ValueError(f"n must be an integer >= 1, got {n}")
    words = [text.split() for text in texts]
    grams = [tuple(row[i : i + n]) for row in words for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
