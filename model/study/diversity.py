"""How much texts repeat each other and themselves: Self-BLEU and distinct-n."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from samplers.extras import how_to_install


def self_bleu(texts: Sequence[str]) -> float:
    """How much each text resembles all the others: 100 if they are equal, 0 if they share no word.

    The mean over texts of `sacrebleu.sentence_bleu(text, all other texts)`: BLEU-4, 13a words, exponential smoothing,
    effective order. Every text is the hypothesis once, hence the order of the texts does not matter. The value grows
    with the number of texts; compare only sets of equal size.

    Args:
        texts: two or more.
    Returns: 0 .. 100; lower is more diverse.
    Raises: ValueError for fewer than two texts; RuntimeError if sacrebleu is missing.
    Source: Zhu et al. 2018 (Texygen); BLEU as in Post 2018 (sacrebleu).

    >>> self_bleu(["the cat sat on the mat"] * 3), self_bleu(["the cat sat", "a dog ran"])
    (100.0, 0.0)
    """
    if len(texts) < 2:
        raise ValueError(f"texts must be two or more, to compare each with the others, got {len(texts)}")
    sentence_bleu = bleu()  # first, since a missing package must be reported even for equal texts
    if len(set(texts)) == 1:
        return 100.0  # also for empty texts; sacrebleu's own value would be 100.00000000000004
    scores = [sentence_bleu(text, [*texts[:i], *texts[i + 1 :]]).score for i, text in enumerate(texts)]
    return min(sum(scores) / len(scores), 100.0)


def bleu() -> Callable[..., Any]:
    """`sacrebleu.sentence_bleu`. Raises RuntimeError with the command that installs it if it is missing."""
    try:
        from sacrebleu import sentence_bleu
    except ImportError:
        raise RuntimeError(f"Self-BLEU needs sacrebleu: {how_to_install('study')}") from None
    return sentence_bleu


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words over all n-grams of all texts: low if texts repeat themselves or each other.

    Words are separated by blanks. The paper divides by the number of words. Here, as in common use, the divisor is the
    number of n-grams: texts without any repetition have 1 for every n.

    Args:
        texts: any number; no n-gram spans two of them.
        n: int >= 1.
    Returns: 0 .. 1; 0 if no text has n words.
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
