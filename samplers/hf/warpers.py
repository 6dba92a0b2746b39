"""Single processors for a LogitsProcessorList, with the constructors and attributes of transformers'.

They keep the tokens that `filter_logits` keeps with one parameter; float64 scores are rounded to float32 for it. A
result has the type and shape of the scores, and a gradient flows through it as in transformers. As everywhere in this
package, values out of range are refused by name, and a row with a NaN, +inf or nothing above -inf raises InvalidLogits.
The attributes are read-only. The classes are not subclasses of transformers': its continuous batching would replace
them.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

import torch
from transformers import LogitsProcessor

from samplers.params import PENALTY_RANGES, SamplingParams, integer, number, within
from samplers.reference.filters import FILTERS, Range
from samplers.sampler import filter_logits

TEMPERATURE = Range("in [1e-6, 1e6]", 1e-6, 1e6)
TYPICAL_P = next(f.accepts for f in FILTERS if f.name == "typical_p")
CUTOFF = Range("in (0, 1)", 0, 1, open_low=True, open_high=True)


class Warper(LogitsProcessor):
    """Keeps the tokens of one parameter and sets the others to filter_value."""

    supports_continuous_batching = True
    min_tokens_to_keep = property(attrgetter("params.min_tokens_to_keep"))

    def __init__(self, filter_value: float = -math.inf, min_tokens_to_keep: int = 1, **parameter: Any) -> None:
        self.filter_value = filter_value
        self.params = SamplingParams(min_tokens_to_keep=min_tokens_to_keep, **parameter)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        filtered = filter_logits(rows_of(scores), self.params).view(scores.shape)
        return scores.masked_fill((filtered == -math.inf) & (scores > -math.inf), self.filter_value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params})"


def rows_of(scores: torch.Tensor) -> torch.Tensor:
    """Scores [..., V] in the engine's form: [B, V], not float64."""
    rows = torch.atleast_2d(scores).flatten(0, -2)
    return rows.float() if rows.dtype == torch.float64 else rows


class TemperatureLogitsWarper(Warper):
    """Divides by the temperature, in [1e-6, 1e6].

    >>> TemperatureLogitsWarper(0.5)(None, torch.tensor([[1.0, 2.0]]))
    tensor([[2., 4.]])
    """

    temperature = property(attrgetter("params.temperature"))

    def __init__(self, temperature: float) -> None:
        super().__init__(temperature=checked("temperature", temperature, TEMPERATURE))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        filter_logits(rows_of(scores), self.params)  # refuses invalid rows
        return scores / self.temperature


class TopKLogitsWarper(Warper):
    """Keeps the top_k >= 1 greatest, ties at the last included.

    >>> TopKLogitsWarper(2)(None, torch.tensor([[1.0, 3.0, 2.0]]))
    tensor([[-inf, 3., 2.]])
    """

    top_k = property(lambda self: max(self.params.top_k, self.min_tokens_to_keep))

    def __init__(self, top_k: int, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep, top_k=integer("top_k", top_k, least=1))


class TopPLogitsWarper(Warper):
    """Keeps the fewest tokens that hold the mass top_p in [0, 1] (Holtzman et al., 2020)."""

    top_p = property(attrgetter("params.top_p"))

    def __init__(self, top_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep, top_p=top_p)


class MinPLogitsWarper(Warper):
    """Keeps tokens at least min_p in [0, 1] times as probable as the first (Nguyen et al., 2024)."""

    min_p = property(attrgetter("params.min_p"))

    def __init__(self, min_p: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep, min_p=min_p)


class TypicalLogitsWarper(Warper):
    """Keeps the tokens nearest the entropy that hold a mass in (0, 1] (Meister et al., 2022)."""

    mass = property(attrgetter("params.typical_p"))

    def __init__(self, mass: float = 0.9, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep, typical_p=checked("mass", mass, TYPICAL_P))


class EpsilonLogitsWarper(Warper):
    """Keeps tokens of probability epsilon in (0, 1) or more (Hewitt et al., 2022)."""

    epsilon = property(attrgetter("params.epsilon_cutoff"))

    def __init__(self, epsilon: float, filter_value: float = -math.inf, min_tokens_to_keep: int = 1) -> None:
        super().__init__(filter_value, min_tokens_to_keep, epsilon_cutoff=checked("epsilon", epsilon, CUTOFF))


class EtaLogitsWarper(Warper):
    """Keeps tokens of probability min(epsilon, sqrt(epsilon)·e^-entropy) or more (Hewitt et al., 2022).

    device is accepted, as in transformers, and ignored.
    """

    epsilon = property(attrgetter("params.eta_cutoff"))

    def __init__(
        self,
        epsilon: float,
        filter_value: float = -math.inf,
        min_tokens_to_keep: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__(filter_value, min_tokens_to_keep, eta_cutoff=checked("epsilon", epsilon, CUTOFF))


class RepetitionPenaltyLogitsProcessor(LogitsProcessor):
    """Divides the positive logits of tokens in the text by penalty > 0, multiplies the negative ones (Keskar, 2019).

    prompt_ignore_length: number of first ids that do not count, an int for all rows or an integer tensor [B]. Of
    scores [B, L, V] the last position is penalised.

    >>> RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[0, 2]]), torch.tensor([[1.0, 3.0, -2.0]]))
    tensor([[ 0.5000,  3.0000, -4.0000]])
    """

    supports_continuous_batching = False  # it would get only the last token
    penalty = property(attrgetter("params.repetition_penalty"))

    def __init__(self, penalty: float, prompt_ignore_length: int | torch.Tensor | None = None) -> None:
        self.params = SamplingParams(
            repetition_penalty=checked("penalty", penalty, PENALTY_RANGES["repetition_penalty"])
        )
        if isinstance(prompt_ignore_length, torch.Tensor):
            if prompt_ignore_length.ndim != 1:
                shape = tuple(prompt_ignore_length.shape)
                raise ValueError(f"prompt_ignore_length must be an integer >= 0 or of shape (B,), got shape {shape}")
        elif prompt_ignore_length is not None:
            integer("prompt_ignore_length", prompt_ignore_length, least=0)
        self.prompt_ignore_length = prompt_ignore_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if scores.ndim == 3:
            last = self(input_ids, scores[:, -1])
            return torch.cat([scores[:, :-1], last[:, None]], dim=1)
        history = self.history(input_ids)
        filter_logits(rows_of(scores), self.params, history=history)  # refuses invalid rows
        vocabulary = scores.shape[-1]
        ids = torch.where((history >= 0) & (history < vocabulary), history, vocabulary).to(scores.device, torch.int64)
        said = torch.zeros((len(ids), vocabulary + 1), dtype=torch.bool, device=scores.device)
        said = said.scatter_(1, ids, True)[:, :-1]
        return torch.where(said, torch.where(scores < 0, scores * self.penalty, scores / self.penalty), scores)

    def history(self, input_ids: torch.Tensor) -> torch.Tensor:
        """The ids that count, int [B, L]; -1 for ignored ids."""
        history = input_ids[:, None] if input_ids.ndim == 1 else input_ids
        ignored = self.prompt_ignore_length
        if isinstance(ignored, torch.Tensor):
            if len(ignored) != len(history):
                raise ValueError(f"prompt_ignore_length must be of shape ({len(history)},), got ({len(ignored)},)")
            positions = torch.arange(history.shape[1], device=history.device)
            return history.masked_fill(positions < ignored.to(history.device)[:, None], -1)
        return history if ignored is None else history[:, ignored:]


def checked(name: str, value: float, accepted: Range) -> float:
    """Check a value under the processor's name for it; values that mean "off" are errors, as in transformers."""
    return within(name, number(name, value, accepted.text), accepted)
