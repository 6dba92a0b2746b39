"""A model as a classifier: how probable each of a few answers is after a prompt, by the model's raw logits.

A choice is written in several ways ("Yes", " yes", "YES"), and each spelling that is one token is another token id.
Such a choice has the sum of their probabilities. A choice that no single token spells is scored as a text, piece by
piece. Two numbers belong together: the share of each choice among the choices, and their coverage, the probability
that the model answers with one of them at all. A share of 99 % at a coverage of 0.1 % says little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding.prompts import encode_prompt, encode_prompts, padded
from model.llama import Llama
from model.tokenizer import SPACE, Tokenizer

BATCH = 16  # sequences that go through the model at a time


@dataclass(frozen=True)
class Token:
    """One token of a choice; logprob in nats (natural logarithm), at its place after the prompt."""

    id: int
    piece: str
    logprob: float


@dataclass(frozen=True)
class Choice:
    """One answer and how the model rates it; logprobs in nats, probabilities and shares in [0, 1].

    whole: True where the choice is scored as a text, whose pieces in their order are `tokens`; False where `tokens`
    are its one-token spellings, the most probable first. logprob: of the text, the sum of its pieces; of spellings,
    their logsumexp. mean_logprob: logprob divided by the number of pieces (a one-token choice has one).
    share: probability / Σ probability of the choices; share_by_mean: the same from exp(mean_logprob), which does not
    favour short texts.
    """

    choice: str
    whole: bool
    tokens: list[Token]
    logprob: float
    probability: float
    mean_logprob: float
    share: float
    share_by_mean: float


@dataclass(frozen=True)
class Score:
    """The choices after one prompt, in the order given.

    coverage: in [0, 1], the probability that the answer is one of them: the sum of theirs, without a choice whose
    pieces begin with another choice, because that one holds it already.
    """

    prompt: str
    choices: list[Choice]
    coverage: float


@dataclass(frozen=True)
class Row:
    """A sequence for the model, and what to read there: (position, token), the logprob of the token that follows."""

    ids: tuple[int, ...]
    reads: list[tuple[int, int]]


@dataclass(frozen=True)
class Spelling:
    """How a choice is scored: `ids` are alternatives, or where it is whole, pieces one after the other."""

    text: str
    whole: bool
    ids: list[int]

    @property
    def paths(self) -> list[tuple[int, ...]]:
        """The token sequences that count as this choice."""
        return [tuple(self.ids)] if self.whole else [(token,) for token in self.ids]


@torch.inference_mode()
def score(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[str],
    choices: Sequence[str],
    *,
    whole: bool = False,
    on_progress: Callable[[int], None] = lambda done: None,
) -> list[Score]:
    """Rate the choices as answers to each prompt, so that a language model serves as a classifier.

    Args:
        prompts: texts; BOS is put before each, as in `generate`.
        choices: two answers or more; case and a leading space don't matter, unless whole is True, where case does.
        whole: score every choice as a text, also where it is one token.
        on_progress: called with the number of choices rated, len(prompts) * len(choices) at the end.

    The log-softmax is taken in float64 of the model's logits, before any temperature, penalty or filter. What stands
    beside a prompt in a batch changes its logits by rounding at most.

    Raises: TypeError or ValueError naming the argument: fewer than two choices, an empty one, the name of a
        special token, two with a token sequence in common, a prompt that with its choice exceeds the model's window,
        logits that are no numbers.

    Source: labels rated by the words that stand for them, Schick & Schütze 2021; spellings compete for one mass of
        probability, Holtzman et al. 2021 (surface form competition); the mean a token, Brown et al. 2020 (section 2.4).

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> (answer,) = score(model, tokenizer, "The old", ["king", "queen"])
    >>> [(token.id, token.piece) for token in answer.choices[0].tokens]
    [(559, '▁King'), (518, '▁king'), (670, 'king')]
    >>> answer.choices[0].share > 0.5, round(sum(choice.share for choice in answer.choices), 12)
    (True, 1.0)
    """
    texts = [prompts] if isinstance(prompts, str) else prompts
    prompt_ids = encode_prompts(texts, tokenizer, model.config.vocab_size)
    spellings = spelled(tokenizer, checked_choices(choices), whole, model.config.vocab_size)
    check_window(prompt_ids, spellings, model.config.max_position_embeddings)
    rows = [row_after(ids, spelling) for ids in prompt_ids for spelling in spellings]
    logprobs = read_logprobs(model, rows, on_progress)
    count = len(spellings)
    return [rated(tokenizer, text, spellings, logprobs[i * count : (i + 1) * count]) for i, text in enumerate(texts)]


def checked_choices(choices: Sequence[str]) -> list[str]:
    """The choices, where they are two non-empty texts or more; a separate step, so that a command fails early."""
    if isinstance(choices, str) or not isinstance(choices, Sequence) or not all(isinstance(c, str) for c in choices):
        raise TypeError(f"choices must be a list of texts, got {choices!r}")
    if len(choices) < 2:
        raise ValueError(f"choices must be two texts or more, got {len(choices)}: {', '.join(choices) or 'none'}")
    seen: set[str] = set()
    for i, choice in enumerate(choices):
        if not without_space(choice):
            raise ValueError(f"choices[{i}] must hold more than spaces, got {choice!r}")
        if choice in seen:
            raise ValueError(f"choices must be distinct, got {choice!r} twice")
        seen.add(choice)
    return list(choices)


def without_space(choice: str) -> str:
    """A choice without the space before it, however written, because both spellings are tried anyway."""
    return choice.replace(SPACE, " ").lstrip(" ")


def spelled(tokenizer: Tokenizer, choices: list[str], whole: bool, vocabulary: int) -> list[Spelling]:
    """Each choice by its one-token spellings, else by its pieces; none may count for two choices."""
    found: list[Spelling] = []
    owner: dict[tuple[int, ...], str] = {}
    spelling_ids = ids_by_text(tokenizer, vocabulary)
    for i, choice in enumerate(choices):
        if without_space(choice).strip() in tokenizer.special:
            raise ValueError(f"choices[{i}] must be a text, got {choice!r}, the name of a token that no text spells")
        pieces = encode_prompt(f"choices[{i}]", word_ids(tokenizer, choice), tokenizer, vocabulary)
        ids = [] if whole else one_token_ids(spelling_ids, choice)
        found.append(Spelling(choice, not ids, ids or pieces))
        for path in found[-1].paths:
            if path in owner:
                shared = " ".join(
                    f"{piece} ({token})" for piece, token in zip(tokenizer.pieces(path), path, strict=True)
                )
                advice = "" if whole else "; whole (--whole) tells case apart"
                raise ValueError(
                    f"choices must be distinct, also but for case and a leading space: "
                    f"got {owner[path]!r} and {choice!r}, both of which count {shared}{advice}"
                )
            owner[path] = choice
    return found


def ids_by_text(tokenizer: Tokenizer, vocabulary: int) -> dict[bytes, list[int]]:
    """The ids of the model's vocabulary by what they add to the text: `A` and `<0x41>` are two with one text."""
    found = defaultdict(list)
    for i in range(min(tokenizer.vocab_size, vocabulary)):
        if not tokenizer.sp.is_unknown(i):
            found[tokenizer.token_bytes(i)].append(i)
    return found


def one_token_ids(ids: Mapping[bytes, list[int]], choice: str) -> list[int]:
    """Every id whose text is a spelling of the choice: as given, lower, upper and title case, with and without a space.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> tokenizer.pieces(one_token_ids(ids_by_text(tokenizer, 4096), "a"))
    ['<0x41>', '<0x61>', '▁a', '▁A', 'a', 'A']
    """
    text = without_space(choice)
    cases = (text, text.lower(), text.upper(), text.title())
    wanted = {(space + case).encode() for case in cases for space in ("", " ")}
    return sorted(i for spelling in wanted for i in ids.get(spelling, ()))


def word_ids(tokenizer: Tokenizer, choice: str) -> list[int]:
    """The pieces of a choice as a new word after the prompt, i.e. with one space before it.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> tokenizer.pieces(word_ids(tokenizer, "YES"))
    ['▁Y', 'E', 'S']
    """
    text = without_space(choice)
    ids = tokenizer.encode(text, bos=False)
    if not tokenizer.pieces(ids[:1])[0].startswith(SPACE):  # a vocabulary that puts no space before a text
        ids = tokenizer.encode(" " + text, bos=False)
    if any(tokenizer.sp.is_unknown(i) for i in ids):
        raise ValueError(f"choices must be texts that the vocabulary can write, got {choice!r}")
    return ids


def check_window(prompt_ids: list[list[int]], spellings: list[Spelling], window: int) -> None:
    """Refuse a prompt that the model can't see as a whole together with the pieces of a choice."""
    longest = max(spellings, key=lambda spelling: len(spelling.paths[0]))
    pieces = len(longest.paths[0])
    for number, ids in enumerate(prompt_ids):
        if len(ids) + pieces > window:
            raise ValueError(
                f"prompts[{number}]: {len(ids)} prompt tokens + {pieces} of the choice {longest.text!r} = "
                f"{len(ids) + pieces} > {window}, the model's window (max_position_embeddings): shorten the prompt"
            )


def row_after(prompt: list[int], spelling: Spelling) -> Row:
    """What to read for a choice: all spellings right after the prompt, or each piece after those before it."""
    last = len(prompt) - 1
    if not spelling.whole:
        return Row(tuple(prompt), [(last, token) for token in spelling.ids])
    return Row((*prompt, *spelling.ids[:-1]), [(last + i, token) for i, token in enumerate(spelling.ids)])


def read_logprobs(model: Llama, rows: Sequence[Row], on_progress: Callable[[int], None]) -> list[list[float]]:
    """The logprobs that each row asks for, in nats; a sequence that several rows share goes through the model once."""
    found: list[list[float]] = [[] for _ in rows]
    sharing: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        sharing[row.ids].append(number)
    sequences = sorted(sharing, key=len)  # neighbours of like length need little padding
    done = 0
    for start in range(0, len(sequences), BATCH):
        batch = sequences[start : start + BATCH]
        for ids, hidden in zip(batch, model.hidden(padded(batch).to(model.device)), strict=True):  # [L, E]
            for number in sharing[ids]:
                found[number] = read_row(model, hidden, rows[number])
                done += 1
        on_progress(done)
    return found


def read_row(model: Llama, hidden: Tensor, row: Row) -> list[float]:
    """Float64 log-softmax of the raw logits at the row's positions; hidden [L, E]."""
    first, last = row.reads[0][0], row.reads[-1][0]
    logprobs = model.logits(hidden[first : last + 1]).double().log_softmax(-1)  # [positions, V]
    positions, tokens = zip(*row.reads, strict=True)
    found = logprobs[[position - first for position in positions], list(tokens)].tolist()
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{model.source}: must give finite logits, got {found} (weights in {model.dtype})")
    return found


def rated(tokenizer: Tokenizer, prompt: str, spellings: list[Spelling], logprobs: list[list[float]]) -> Score:
    """The scores after one prompt; logprobs: for each choice those that its row asked for."""
    sums = [sum(found) if s.whole else log_sum(found) for s, found in zip(spellings, logprobs, strict=True)]
    means = [total / len(s.paths[0]) for total, s in zip(sums, spellings, strict=True)]
    all_sums, all_means = log_sum(sums), log_sum(means)
    choices = [
        Choice(
            choice=spelling.text,
            whole=spelling.whole,
            tokens=tokens_of(tokenizer, spelling, found),
            logprob=total,
            probability=math.exp(total),
            mean_logprob=mean,
            share=math.exp(total - all_sums),
            share_by_mean=math.exp(mean - all_means),
        )
        for spelling, found, total, mean in zip(spellings, logprobs, sums, means, strict=True)
    ]
    paths = {path for spelling in spellings for path in spelling.paths}
    apart = [
        choice.probability for choice, spelling in zip(choices, spellings, strict=True) if not held(spelling, paths)
    ]
    return Score(prompt, choices, math.fsum(apart))


def tokens_of(tokenizer: Tokenizer, spelling: Spelling, logprobs: list[float]) -> list[Token]:
    """Pieces in their order, spellings by falling probability."""
    pieces = tokenizer.pieces(spelling.ids)
    tokens = [Token(*fields) for fields in zip(spelling.ids, pieces, logprobs, strict=True)]
    return tokens if spelling.whole else sorted(tokens, key=lambda token: -token.logprob)


def held(spelling: Spelling, paths: Set[tuple[int, ...]]) -> bool:
    """Whether a choice begins with another one, whose probability then has its own within; paths: of all choices."""
    return spelling.whole and any(tuple(spelling.ids[:length]) in paths for length in range(1, len(spelling.ids)))


def log_sum(logprobs: Sequence[float]) -> float:
    """ln Σ exp(x), by the largest, so that nothing overflows or vanishes.

    >>> log_sum([-1000.0, -1000.0]) == -1000 + math.log(2)
    True
    """
    largest = max(logprobs)
    return largest + math.log(math.fsum(math.exp(x - largest) for x in logprobs))
