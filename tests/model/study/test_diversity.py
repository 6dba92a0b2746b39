"""Oracle: counts by hand, BLEU by hand from its formula, and sacrebleu called directly."""

import math
import sys
from itertools import permutations

import pytest
import sacrebleu

from model.study.diversity import distinct_n, self_bleu

TEXTS = ["the king had a daughter", "the king had a son", "once there was a king who had no son"]


@pytest.mark.parametrize("text", ["the king had a daughter", "one", "two words", "", "Ciccu\ufffd ⁇ !"])
def test_equal_texts_have_exactly_100(text: str):
    assert self_bleu([text] * 3) == 100.0


def test_disjoint_texts_have_none():
    assert self_bleu(["a b c d e", "f g h i j", "k l m n o"]) < 1
    assert self_bleu(["", "a b c d e"]) == 0


def test_every_text_is_compared_with_all_others():
    """Not one way: the value is that of no order, and of no pair alone."""
    values = {round(self_bleu(order), 9) for order in permutations(TEXTS)}
    expected = sum(
        sacrebleu.corpus_bleu([text], [[other] for other in TEXTS if other != text], use_effective_order=True).score
        for text in TEXTS
    ) / len(TEXTS)
    assert values == {round(expected, 9)}
    pair = sum(sacrebleu.sentence_bleu(a, [b]).score for a, b in permutations(TEXTS[:2])) / 2
    assert self_bleu(TEXTS[:2]) == pytest.approx(pair)


def test_by_hand():
    """5 words, 4 shared: 4/5 words, 3/4 pairs, 2/3 triples, 1/2 fours, equal lengths; the same from either side."""
    assert self_bleu(TEXTS[:2]) == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))


def test_a_short_text_pays_for_its_brevity():
    """'a b' in 'a b c d' is right in all it says; the other way 2/4 words, 1/3 pairs, and 1/4 of 1/2, 1/2 smoothed."""
    forth = math.exp(1 - 4 / 2)
    back = (2 / 4 * 1 / 3 * 1 / (2 * 2) * 1 / (4 * 1)) ** (1 / 4)
    assert self_bleu(["a b", "a b c d"]) == pytest.approx(100 * (forth + back) / 2)


def test_one_text_has_no_others():
    with pytest.raises(ValueError, match="texts must be two or more, to compare each with the others, got 1"):
        self_bleu(["alone"])


def test_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(RuntimeError, match=r"needs sacrebleu: pip install 'alea-sampling\[study\]'"):
        self_bleu(["a", "b"])


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 1, 2 / 4),
        (["a b a b"], 2, 2 / 3),
        (["a b", "b a", "a b"], 2, 2 / 3),  # no pair spans two texts
        (["a b c", "a b c"], 3, 1 / 2),
        (["a b"], 3, 0.0),
        ([], 1, 0.0),
    ],
)
def test_distinct_n_by_hand(texts: list[str], n: int, expected: float):
    assert distinct_n(texts, n) == expected


def test_distinct_n_of_nothing():
    with pytest.raises(ValueError, match="n must be an integer >= 1, got 0"):
        distinct_n(["a"], 0)
