"""A language model as a classifier: the probability of each of a few answers to a prompt, from the raw logits.

A choice has several spellings ("Yes", " yes", "YES"); each one-token spelling has its own token id. The probability of
the choice is the sum over these ids. A choice without a one-token spelling is scored as a text, piece by piece. Read
two numbers together: the share of each choice among the choices, and their coverage, the probability that the model
answers with any of them. A share of 99 % at a coverage of 0.1 % says little.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from model.decoding.prompts import encode_prompt, encode_prompts, read
from model.llama import Llama
from model.tokenizer import SPACE, Tokenizer

BATCH = 16  # sequences in a forward pass


@dataclass(frozen=True)
class Token:
    """One token of a choice; logprob in nats, at the token's position after the prompt."""

    id: int
    piece: str
    logprob: float


@dataclass(frozen=True)
class Choice:
    """One answer and its scores; logprobs in nats, probabilities and shares in [0, 1].

    whole: True if the choice is scored as a text, then `tokens` are its pieces in order; False if `tokens` are its
    one-token spellings, the most probable first. logprob: the sum over the pieces, or the logsumexp over the spellings.
    mean_logprob: logprob divided by the number of pieces (1 for spellings). share: probability / Σ probability of the
    choices; share_by_mean: the same from exp(mean_logprob), which does not favour short texts.
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
    """The choices after one prompt, in the given order.

    coverage: in [0, 1], the probability that the answer is one of the choices: the sum of their probabilities. A choice
    whose pieces begin with another choice is left out of the sum, since the other choice includes it.
    """

    prompt: str
    choices: list[Choice]
    coverage: float


@dataclass(frozen=True)
class Query:
    """A sequence for the model and the logprobs to read: (position, token), the token after that position."""

    ids: tuple[int, ...]
    reads: list[tuple[int, int]]


@dataclass(frozen=True)
class Spelling:
    """How a choice is scored: `ids` are alternatives, or consecutive pieces if it is whole."""

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
    """Score the choices as answers to each prompt.

    Args:
        prompts: texts; BOS is put before each, as in `generate`.
        choices: two answers or more. Case and a leading space don't matter; if whole is True, case matters.
        whole: score every choice as a text, even one with a one-token spelling.
        on_progress: called with the number of choices scored, len(prompts) * len(choices) at the end.

    The log-softmax is taken in float64 of the model's logits, before any temperature, penalty or filter. Where torch
    computes the model, the other prompts of a batch change the logits of a prompt by rounding.

    Raises: TypeError or ValueError naming the argument: fewer than two choices, an empty choice, the name of a special
        token, two choices with a common token sequence, a prompt and choice that exceed the model's window, logits
        that are not finite.

    Source: words as labels, Schick & Schütze 2021; spellings share one probability mass, Holtzman et al. 2021 (surface
        form competition); the mean per token, Brown et al. 2020 (section 2.4).

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> (answer,) = score(model, tokenizer, "The old", ["king", "queen"])
    >>> [(token.id, token.piece) for token in answer.choices[0].tokens]
    [(559, '▁King'), (518, '▁king'), (670, 'king')]
    >>> answer.choices[0].share > 0.5, round(sum(choice.share for choice in answer.choices), 12)
    (True, 1.0)
    """
    texts = [prompts] if isinstance(prompts, str) else prompts
    prompt_ids = encode_prompts(texts, tokenizer, model.config.vocab_size)
    spellings = spell_choices(tokenizer, checked_choices(choices), whole, model.config.vocab_size)
    check_window(prompt_ids, spellings, model.config.max_position_embeddings)
    queries = [query_after(ids, spelling) for ids in prompt_ids for spelling in spellings]
    logprobs = read_logprobs(model, queries, on_progress)
    n = len(spellings)
    return [scored(tokenizer, text, spellings, logprobs[i * n : (i + 1) * n]) for i, text in enumerate(texts)]


def checked_choices(choices: Sequence[str]) -> list[str]:
    """Two or more different, non-empty texts. Commands call it before they load a model."""
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
    """A choice without its leading space, since both spellings are tried anyway."""
    return choice.replace(SPACE, " ").lstrip(" ")


def spell_choices(tokenizer: Tokenizer, choices: list[str], whole: bool, vocabulary: int) -> list[Spelling]:
    """The one-token spellings of each choice, else its pieces. No token sequence may count for two choices."""
    spellings: list[Spelling] = []
    owner: dict[tuple[int, ...], str] = {}
    id_table = ids_by_text(tokenizer, vocabulary)
    for i, choice in enumerate(choices):
        if without_space(choice).strip() in tokenizer.special:
            raise ValueError(f"choices[{i}] must be a text, got {choice!r}, the name of a token that no text spells")
        pieces = encode_prompt(f"choices[{i}]", word_ids(tokenizer, choice), tokenizer, vocabulary)
        ids = [] if whole else one_token_ids(id_table, choice)
        spellings.append(Spelling(choice, not ids, ids or pieces))
        for path in spellings[-1].paths:
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
    return spellings


def ids_by_text(tokenizer: Tokenizer, vocabulary: int) -> dict[bytes, list[int]]:
    """The ids of the model's vocabulary by their bytes: `A` and `<0x41>` have the same."""
    ids = defaultdict(list)
    for i in range(min(tokenizer.vocab_size, vocabulary)):
        if not tokenizer.sp.is_unknown(i):
            ids[tokenizer.token_bytes(i)].append(i)
    return ids


def one_token_ids(ids: Mapping[bytes, list[int]], choice: str) -> list[int]:
    """Every id that spells the choice: as given, in lower, upper and title case, with and without a leading space.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> tokenizer.pieces(one_token_ids(ids_by_text(tokenizer, 4096), "a"))
    ['<0x41>', '<0x61>', '▁a', '▁A', 'a', 'A']
    """
    text = without_space(choice)
    cases = (text, text.lower(), text.upper(), text.title())
    wanted = {(space + case).encode() for case in cases for space in ("", " ")}
    return sorted(i for spelling in wanted for i in ids.get(spelling, ()))


def word_ids(tokenizer: Tokenizer, choice: str) -> list[int]:
    """The pieces of a choice as a new word after the prompt, with one space before it.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> tokenizer.pieces(word_ids(tokenizer, "YES"))
    ['▁Y', 'E', 'S']
    """
    text = without_space(choice)
    ids = tokenizer.encode(text, bos=False)
    if not tokenizer.pieces(ids[:1])[0].startswith(SPACE):  # this vocabulary adds no leading space
        ids = tokenizer.encode(" " + text, bos=False)
    if any(tokenizer.sp.is_unknown(i) for i in ids):
        raise ValueError(f"choices must be texts that the vocabulary can write, got {choice!r}")
    return ids


def check_window(prompt_ids: list[list[int]], spellings: list[Spelling], window: int) -> None:
    """Raises ValueError if a prompt with the longest choice exceeds the window."""
    longest = max(spellings, key=lambda spelling: len(spelling.paths[0]))
    pieces = len(longest.paths[0])
    for number, ids in enumerate(prompt_ids):
        if len(ids) + pieces > window:
            raise ValueError(
                f"prompts[{number}]: {len(ids)} prompt tokens + {pieces} of the choice {longest.text!r} = "
                f"{len(ids) + pieces} > {window}, the model's window (max_position_embeddings): shorten the prompt"
            )


def query_after(prompt: list[int], spelling: Spelling) -> Query:
    """Reads all spellings right after the prompt, or each piece after the pieces before it."""
    last = len(prompt) - 1
    if not spelling.whole:
        return Query(tuple(prompt), [(last, token) for token in spelling.ids])
    return Query((*prompt, *spelling.ids[:-1]), [(last + i, token) for i, token in enumerate(spelling.ids)])


def read_logprobs(model: Llama, queries: Sequence[Query], on_progress: Callable[[int], None]) -> list[list[float]]:
    """The logprobs of each query, in nats. Queries with the same sequence share one forward pass."""
    logprobs: list[list[float]] = [[] for _ in queries]
    sharing: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, query in enumerate(queries):
        sharing[query.ids].append(number)
    sequences = sorted(sharing, key=len)  # sequences of similar length need little padding
    done = 0
    for start in range(0, len(sequences), BATCH):
        batch = sequences[start : start + BATCH]
        for ids, hidden in zip(batch, read(model, batch), strict=True):  # [L, E]
            for number in sharing[ids]:
                logprobs[number] = read_query(model, hidden, queries[number])
                done += 1
        on_progress(done)
    return logprobs


def read_query(model: Llama, hidden: Tensor, query: Query) -> list[float]:
    """Float64 log-softmax of the raw logits at the query's positions; hidden [L, E]."""
    positions, tokens = zip(*query.reads, strict=True)
    first, last = positions[0], positions[-1]
    all_logprobs = model.logits(hidden[first : last + 1]).double().log_softmax(-1)  # [positions, V]
    logprobs = all_logprobs[[position - first for position in positions], list(tokens)].tolist()
    if not all(map(math.isfinite, logprobs)):
        raise ValueError(f"{model.source}: must give finite logits, got {logprobs} (weights in {model.dtype})")
    return logprobs


def scored(tokenizer: Tokenizer, prompt: str, spellings: list[Spelling], logprobs: list[list[float]]) -> Score:
    """The scores after one prompt; logprobs: of each choice's query."""
    sums = [sum(values) if s.whole else log_sum(values) for s, values in zip(spellings, logprobs, strict=True)]
    means = [total / len(s.paths[0]) for total, s in zip(sums, spellings, strict=True)]
    all_sums, all_means = log_sum(sums), log_sum(means)
    choices = [
        Choice(
            choice=spelling.text,
            whole=spelling.whole,
            tokens=tokens_of(tokenizer, spelling, values),
            logprob=total,
            probability=math.exp(total),
            mean_logprob=mean,
            share=math.exp(total - all_sums),
            share_by_mean=math.exp(mean - all_means),
        )
        for spelling, values, total, mean in zip(spellings, logprobs, sums, means, strict=True)
    ]
    paths = {path for spelling in spellings for path in spelling.paths}
    disjoint = [c.probability for c, s in zip(choices, spellings, strict=True) if not begins_with_another(s, paths)]
    return Score(prompt, choices, math.fsum(disjoint))


def tokens_of(tokenizer: Tokenizer, spelling: Spelling, logprobs: list[float]) -> list[Token]:
    """Pieces in order, spellings by falling probability."""
    pieces = tokenizer.pieces(spelling.ids)
    tokens = [Token(*fields) for fields in zip(spelling.ids, pieces, logprobs, strict=True)]
    return tokens if spelling.whole else sorted(tokens, key=lambda token: -token.logprob)


def begins_with_another(spelling: Spelling, paths: Set[tuple[int, ...]]) -> bool:
    """Whether a choice begins with another choice, which then includes its probability; paths: of all choices."""
    return spelling.whole and any(tuple(spelling.ids[:length]) in paths for length in range(1, len(spelling.ids)))


def log_sum(logprobs: Sequence[float]) -> float:
    """ln Σ exp(x), relative to the largest x to avoid overflow and underflow.

    >>> log_sum([-1000.0, -1000.0]) == -1000 + math.log(2)
    True
    """
    largest = max(logprobs)
    return largest + math.log(math.fsum(math.exp(x - largest) for x in logprobs))
