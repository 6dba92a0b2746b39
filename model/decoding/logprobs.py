"""The probability of each token of a continuation and of its alternatives, in the shape of OpenAI's completions.

*raw* is the model's own distribution, softmax of its untouched logits at T = 1; *final* is the distribution that a
token was drawn from, after penalties, temperature and filters.
"""

from __future__ import annotations

import codecs
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

import samplers
from model.tokenizer import Tokenizer
from samplers import SamplingParams
from samplers.params import PENALTIES, integer

NO_PROBABILITY = -9999.0  # OpenAI's number for ln 0, as JSON has no -inf
Ranking = list[tuple[int, float]]  # ids and logprobs, the most probable first


class Alternative(NamedTuple):
    """A token that was possible at a step; logprob in nats."""

    id: int
    token: str
    logprob: float


@dataclass
class CompletionLogprobs:
    """Log-probabilities of one continuation's tokens, in nats; every list has one entry per token drawn, EOS included.

    tokens: the text that each adds; "bytes:\\xe2" (OpenAI's name) where its bytes alone are no UTF-8, "</s>" for a
        special token, which adds nothing. Without these two kinds, "".join(tokens) is the uncut text.
    token_ids: their ids. token_logprobs: raw, in float64.
    final_logprobs: final, ln(weight / total) of the sampler's integers in float32, the Generation's own `logprobs`.
    top_logprobs: the n most probable by raw probability, in float64, ties by lowest id, -inf where the logit is.
    top_final_logprobs: the same by final probability, only tokens that the filters kept, so possibly fewer than n.
        They agree with final_logprobs to 3e-6 for tokens above 1e-6 of the most probable.
    text_offset: index, in the continuation's text without the prompt, of the character that holds the token's first
        byte. Tokens of one character share its index. The text's length for a token that adds nothing at the end, and
        for one after the cut at a stop string.

    >>> logprobs = CompletionLogprobs(["a"], [5], [-1.5], [-0.5], [[Alternative(3, "b", -0.5)]], [[]], [0])
    >>> logprobs.to_openai()["top_logprobs"], logprobs.to_openai(final=True)["top_logprobs"]
    ([{'b': -0.5, 'a': -1.5}], [{'a': -0.5}])
    """

    tokens: list[str]
    token_ids: list[int]
    token_logprobs: list[float]
    final_logprobs: list[float]
    top_logprobs: list[list[Alternative]]
    top_final_logprobs: list[list[Alternative]]
    text_offset: list[int]

    def to_openai(self, final: bool = False) -> dict[str, Any]:
        """The shape that clients of OpenAI's completions read, fit for JSON.

        Args:
            final: the final probabilities instead of the raw ones.

        Returns: tokens, token_logprobs, top_logprobs (a dict of text to logprob per step) and text_offset. As in
            OpenAI's, a dict also holds the token drawn, even if it is not among the n, and -inf becomes -9999.0. The
            key of the token drawn is its text; other tokens with an ambiguous text are keyed "text (id 123)".

        >>> twins = [Alternative(3, "b", -1.0), Alternative(4, "b", float("-inf"))]
        >>> logprobs = CompletionLogprobs(["a"], [5], [-1.5], [-0.5], [twins], [[]], [0])
        >>> logprobs.to_openai()["top_logprobs"]
        [{'b (id 3)': -1.0, 'b (id 4)': -9999.0, 'a': -1.5}]
        """
        logprobs = self.final_logprobs if final else self.token_logprobs
        drawn = map(Alternative, self.token_ids, self.tokens, logprobs)
        top = self.top_final_logprobs if final else self.top_logprobs
        return {
            "tokens": list(self.tokens),
            "token_logprobs": [finite(logprob) for logprob in logprobs],
            "top_logprobs": [keyed(*step) for step in zip(drawn, top, strict=True)],
            "text_offset": list(self.text_offset),
        }


def keyed(drawn: Alternative, top: Sequence[Alternative]) -> dict[str, float]:
    """Logprobs by text, with a distinct key per id."""
    logprobs = {token.id: token.logprob for token in [*top, drawn]}
    keys = {token.id: token.token for token in [*top, drawn]}
    while len(set(keys.values())) < len(keys):  # again where a token's own text reads "... (id 123)"
        times = Counter(keys.values())
        keys = {i: key if times[key] == 1 or i == drawn.id else f"{key} (id {i})" for i, key in keys.items()}
    return {keys[i]: finite(logprob) for i, logprob in logprobs.items()}


def finite(logprob: float) -> float:
    return max(logprob, NO_PROBABILITY)


class Step(NamedTuple):
    """The record of a step, kept until the continuation is complete."""

    logprob: float  # raw, of the token drawn
    raw: Ranking
    final: Ranking


class Recorder:
    """Records each step of each sequence for `generate(..., logprobs=n)`."""

    def __init__(self, count: int, vocabulary: int, params: SamplingParams, backend: str) -> None:
        self.count, self.backend = checked_count(count, vocabulary), backend
        self.temperature = params.temperature or 1.0
        penalties = SamplingParams(**{name: getattr(params, name) for name in PENALTIES})
        self.params, self.penalties = params, penalties if penalties != SamplingParams() else None
        self.steps: defaultdict[int, list[Step]] = defaultdict(list)

    def put(self, sequences: Sequence[int], logits: Tensor, tokens: Tensor, **history: Any) -> None:
        """One step. sequences: the number of each row's sequence; logits [B, V]; tokens drawn [B]; history: for the
        penalties."""
        raw = [token_logprobs(row, token, self.count) for row, token in zip(logits, tokens.tolist(), strict=True)]
        final: list[Ranking] = [[]] * len(raw)
        if self.count:
            final = [most_probable(row, self.count) for row in self.final_logits(logits, history)]
        for sequence, (logprob, ranking), last in zip(sequences, raw, final, strict=True):
            self.steps[sequence].append(Step(logprob, ranking, last))

    def final_logits(self, logits: Tensor, history: dict[str, Any]) -> Tensor:
        """x / T where kept, -inf elsewhere: float64 [B, V], because float32 is coarse where T is small."""
        kept = samplers.filter_logits(logits, self.params, backend=self.backend, **history) > -torch.inf
        if self.penalties is not None:
            logits = samplers.filter_logits(logits, self.penalties, backend=self.backend, **history)
        return (logits.double() / self.temperature).masked_fill(~kept, -torch.inf)

    def completion(
        self, sequence: int, ids: Sequence[int], final_logprobs: Sequence[float], text: str, tokenizer: Tokenizer
    ) -> CompletionLogprobs:
        """The steps of a sequence, with its ids and text."""
        steps = self.steps[sequence]
        return CompletionLogprobs(
            tokens=[token_text(tokenizer, i) for i in ids],
            token_ids=list(ids),
            token_logprobs=[step.logprob for step in steps],
            final_logprobs=list(final_logprobs),
            top_logprobs=[alternatives(tokenizer, step.raw) for step in steps],
            top_final_logprobs=[
                alternatives(tokenizer, [pair for pair in step.final if pair[1] > -torch.inf]) for step in steps
            ],
            text_offset=text_offsets([tokenizer.token_bytes(i) for i in ids], len(text)),
        )


def token_logprobs(row: Tensor, token: int, count: int) -> tuple[float, Ranking]:
    """The logprob of a token, and the `count` most probable, under the softmax of logits [V]."""
    x = row.double()
    normaliser = log_sum_exp(x)
    return float(x[token]) - normaliser, ranked(x, normaliser, count)


def most_probable(row: Tensor, count: int) -> Ranking:
    """The `count` most probable under the softmax of logits [V], ties by lowest id."""
    x = row.double()
    return ranked(x, log_sum_exp(x), count)


def ranked(x: Tensor, normaliser: float, count: int) -> Ranking:
    """x: float64 [V]."""
    if count == 0:
        return []
    ids = greatest(x, count)
    return list(zip(ids.tolist(), (x[ids] - normaliser).tolist(), strict=True))


def log_sum_exp(x: Tensor) -> float:
    """ln of the sum of exp of float64 [V], in NumPy: its order of summation depends on V alone, torch's on the threads.

    >>> round(log_sum_exp(torch.tensor([1.0, 1.0, -torch.inf], dtype=torch.float64)), 6)
    1.693147
    """
    row = x.cpu().numpy()
    greatest_logit = row.max()
    return float(greatest_logit + np.log(np.exp(row - greatest_logit).sum()))


def greatest(row: Tensor, count: int) -> Tensor:
    """Ids of the `count` greatest, ties by lowest id (topk leaves ties open). row: [V], 1 <= count <= V.

    >>> greatest(torch.tensor([1.0, 3.0, 0.0, 3.0, 1.0, 1.0]), 4).tolist()
    [1, 3, 0, 4]
    """
    least = row.topk(count).values[-1]
    above, tied = (row > least).nonzero()[:, 0], (row == least).nonzero()[:, 0]  # each by id
    ids = torch.cat([above, tied[: count - len(above)]])
    return ids[row[ids].sort(descending=True, stable=True).indices]


def alternatives(tokenizer: Tokenizer, ranking: Ranking) -> list[Alternative]:
    return [Alternative(i, token_text(tokenizer, i), logprob) for i, logprob in ranking]


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """The text that a token adds, or a name where it adds nothing or half a character.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> [token_text(tokenizer, tokenizer.sp.piece_to_id(piece)) for piece in ("▁the", "<0x0A>", "<0xE2>", "</s>")]
    [' the', '\\n', 'bytes:\\\\xe2', '</s>']
    """
    data = tokenizer.token_bytes(token)
    try:
        return data.decode() or tokenizer.pieces([token])[0]
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def text_offsets(pieces: Sequence[bytes], length: int) -> list[int]:
    """Index of each piece's first character in the text of all pieces, cut to `length` characters.

    >>> text_offsets([b" a", b"\\xc3", b"\\xa9", b"", b"b"], 4)
    [0, 2, 2, 3, 3]
    """
    characters = [*characters_of(b"".join(pieces)), length]
    ends = accumulate(map(len, pieces))
    return [min(characters[end - len(piece)], length) for piece, end in zip(pieces, ends, strict=True)]


def characters_of(data: bytes) -> list[int]:
    """Index of each byte's character; broken UTF-8 decodes to U+FFFD.

    >>> characters_of("aé".encode() + b"\\xe2b")
    [0, 1, 1, 2, 3]
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    numbers, complete = [], 0
    for byte in data:
        complete += len(decoder.decode(bytes([byte])))
        is_pending = bool(decoder.getstate()[0])
        numbers.append(complete if is_pending else complete - 1)
    return numbers


def checked_count(logprobs: int, vocabulary: int) -> int:
    """The number of alternatives. Raises: TypeError or ValueError where it is not in 0 .. vocabulary."""
    count = integer("logprobs", logprobs, 0)
    if count > vocabulary:
        raise ValueError(f"logprobs must be an integer in 0 .. {vocabulary}, the vocabulary, got {count}")
    return count
