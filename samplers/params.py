"""The parameters of a draw, with the names and meanings of transformers; each is checked when it is set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from samplers.cached_property import cached_property
from samplers.reference.filters import FILTERS, Range, bits_of_count

T = TypeVar("T")
P = ParamSpec("P")
FLOAT32_MAX = float(np.finfo(np.float32).max)
FLOAT32_TINY = float(np.finfo(np.float32).smallest_subnormal)
TEMPERATURE = Range("0, or in [1e-6, 1e6]", 1e-6, 1e6)
PENALTY_RANGES = {
    "repetition_penalty": Range("> 0 and finite in float32", FLOAT32_TINY, FLOAT32_MAX),
    "presence_penalty": Range("finite in float32", -FLOAT32_MAX, FLOAT32_MAX),
    "frequency_penalty": Range("finite in float32", -FLOAT32_MAX, FLOAT32_MAX),
}
PENALTIES = (*PENALTY_RANGES, "logit_bias")  # they also act at T = 0
SLOTS = {slot: f for f in FILTERS for slot in f.slots}
# One row of parameters as the backends read it; csrc/params.h and samplers/kernels/sampler.py repeat this order.
# T = 0 is stored as temperature 1 and inverse_temperature 0.
ROW = np.dtype(
    [(name, "f4") for name in ("temperature", "inverse_temperature", "repetition", "presence", "frequency", "padding")]
    + [("min_tokens_to_keep", "i8")]
    + [(slot, "i8" if f.is_integer else "u8") for slot, f in SLOTS.items()]
)
MAX_VOCABULARY = 1 << 20


class Bias(Mapping[int, float]):
    """A read-only dict. Copies (by pickle, copy or `dataclasses.asdict`) are ordinary dicts."""

    def __init__(self, values: dict[int, float]) -> None:
        self._values = values

    def __getitem__(self, token: int) -> float:
        return self._values[token]

    def __iter__(self) -> Iterator[int]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values).replace("-inf", "float('-inf')")  # valid Python

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._values,)


@dataclass(frozen=True)
class SamplingParams:
    """How to turn logits into a distribution; the defaults give softmax(logits).

    temperature: 0 (the most probable token) or 1e-6 .. 1e6; logits are divided by it.
    top_k: int >= 0; keeps the k most probable tokens, 0 switches it off.
    top_p: float in [0, 1]; keeps the fewest tokens that hold this mass, 1 switches it off.
    min_p: float in [0, 1]; keeps tokens at least this fraction as probable as the first, 0 switches it off.
    typical_p: float in (0, 1]; keeps the tokens nearest the entropy that hold this mass, 1 switches it off.
    epsilon_cutoff, eta_cutoff: float in [0, 1); the least probability, fixed or by entropy, 0 switches it off.
    repetition_penalty: float > 0; logits of tokens in the history are divided by it (negative ones are multiplied).
    presence_penalty, frequency_penalty: float; subtracted from the logit once, or once per occurrence.
    logit_bias: {token id: float}, finite or -inf, added to the logits; or None.
    min_tokens_to_keep: int >= 1; no filter leaves fewer tokens.

    The filters act in this order, each on the tokens that the previous one kept, as transformers chains its warpers.
    Raises: TypeError for a wrong type or an unknown name, ValueError for a value out of range.

    >>> SamplingParams(temperature=0.8, top_p=0.9).top_p
    0.9
    >>> SamplingParams(top_p=1.2)
    Traceback (most recent call last):
    ValueError: top_p must be in [0, 1], got 1.2
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    epsilon_cutoff: float = 0.0
    eta_cutoff: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    min_tokens_to_keep: int = 1

    def __post_init__(self) -> None:
        assign = object.__setattr__  # the class is frozen
        temperature = number("temperature", self.temperature, TEMPERATURE.text)
        if temperature != 0:
            within("temperature", temperature, TEMPERATURE)
        assign(self, "temperature", temperature)
        for f in FILTERS:
            value = getattr(self, f.name)
            if f.is_integer:
                assign(self, f.name, integer(f.name, value, int(f.accepts.low)))
            else:
                assign(self, f.name, within(f.name, number(f.name, value, f.accepts.text), f.accepts))
        assign(self, "min_tokens_to_keep", integer("min_tokens_to_keep", self.min_tokens_to_keep, 1))
        for name, accepted in PENALTY_RANGES.items():
            assign(self, name, within(name, number(name, getattr(self, name), accepted.text), accepted))
        assign(self, "logit_bias", checked_bias(self.logit_bias))

    @classmethod
    def from_generation_config(cls, config: Any) -> SamplingParams:
        """The parameters of a transformers `GenerationConfig` or of its dict; unset ones are off.

        As in `generate`, an unset or False `do_sample` means T = 0 without filters; the penalties always apply. In a
        GenerationConfig `top_k=None` means 50 if sampling is on; in a dict it means off. This reads only the settings
        that are fields here; the caller must honour others (`bad_words_ids`, `num_beams` ...).

        Raises: TypeError for any other object; TypeError and ValueError as the class does.

        >>> SamplingParams.from_generation_config({"do_sample": True, "temperature": 0.6, "top_p": 0.9}).temperature
        0.6
        """
        is_dict = isinstance(config, Mapping)
        if not is_dict and not hasattr(config, "do_sample"):
            raise TypeError(f"config must be a GenerationConfig or its dict, got {type(config).__name__}")
        get: Callable[[str], Any] = config.get if is_dict else lambda name: getattr(config, name, None)
        values: dict[str, Any] = {f.name: get(f.name) for f in fields(cls) if get(f.name) is not None}
        if not get("do_sample"):
            return cls(temperature=0.0, **{name: values[name] for name in PENALTIES if name in values})
        if not is_dict:
            values.setdefault("top_k", 50)
        return cls(**values)

    @property
    def uses_history(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @cached_property
    def row(self) -> bytes:
        """One row of the table. Cached: a server lays out a batch again whenever a request joins it."""
        return np.array([numbers(self)], ROW).tobytes()

    @cached_property
    def packed(self) -> PackedParams:
        """Cached: the same parameters at every step are laid out once."""
        return PackedParams((self,))

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: without the cached `packed`."""
        return type(self), tuple(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, eq=False)
class PackedParams:
    """The checked parameters of a batch; `pack` makes them, and every `params` argument accepts them.

    device_table: the table as int64 [R, ROW.itemsize / 8], if the caller keeps it on a GPU and changes it there between
    replays of a captured graph; `params` then matter only for the history and the biases.
    slots: for each row of a batch, the index of its parameters; None: its own number, or 0 if there is only one.
    """

    params: tuple[SamplingParams, ...]
    device: torch.device | None = None
    device_table: torch.Tensor | None = field(default=None, repr=False)
    slots: NDArray[np.int64] | torch.Tensor | None = field(default=None, repr=False)
    _layouts: dict[Any, Any] = field(default_factory=dict, repr=False)

    def rows(self, index: Any) -> PackedParams:
        """Parameters for a batch in which row i has those at index[i]: a server keeps a table and chooses some slots.

        index: integers (B,) in 0 .. R - 1, for R packed parameters. On a GPU they are not checked, and the kernels read
        them there. A seed or stream of length R is then read by the same index, also if B = R.
        Raises: TypeError for anything but integers (B,); ValueError for one out of range.

        >>> packed = pack([SamplingParams(), SamplingParams(top_k=5)])
        >>> [packed.rows([1, 1, 0]).row(i).top_k for i in range(3)]
        [5, 5, 0]
        """
        chosen = replace(self, slots=slots_of(index, len(self.params)))
        known = {name: getattr(self, name) for name in ("uses_history", "greatest_biased", "table")}
        vars(chosen).update(known)  # of all slots: a step of a server does not compute them again
        return chosen

    def row(self, index: int) -> SamplingParams:
        slot = index if self.slots is None else int(self.slots[index])
        return self.params[slot if len(self.params) > 1 else 0]

    @cached_property
    def distinct(self) -> list[SamplingParams]:
        """Each object once: most slots of a server's table are the same empty one."""
        return list({id(p): p for p in self.params}.values())

    @cached_property
    def uses_history(self) -> bool:
        return any(p.uses_history for p in self.distinct)

    @cached_property
    def greatest_biased(self) -> int:
        """The greatest token id that a logit_bias names, or -1."""
        return max((token for p in self.distinct for token in p.logit_bias or ()), default=-1)

    @cached_property
    def table(self) -> NDArray[np.void]:
        """The rows as the backends read them: ROW [R]."""
        return np.ndarray(len(self.params), ROW, b"".join(p.row for p in self.params)).copy()

    @cached_property
    def unbiased(self) -> bytes | None:
        """The table as C++ reads it in a call of one step; None if a row has a bias, or an index chooses rows."""
        return self.table.tobytes() if self.slots is None and self.greatest_biased < 0 else None

    def layout(self, make: Callable[Concatenate[PackedParams, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """make(self, *args): the parameters in a backend's form, made once and cached for later steps.

        args: hashable, by position.
        """
        key = (make, *args)
        try:
            return self._layouts[key]
        except KeyError:
            self._layouts[key] = layout = make(self, *args, **kwargs)
            return layout

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy: without the layouts, which other processes cannot read."""
        return type(self), (self.params, self.device, None, self.slots)


def slots_of(index: Any, size: int) -> NDArray[np.int64] | torch.Tensor:
    accepted = f"integers (B,) in 0 .. {size - 1}"
    if isinstance(index, torch.Tensor) and index.is_cuda:
        if index.dtype not in (torch.int64, torch.int32) or index.ndim != 1:
            raise TypeError(f"index must be {accepted}, got {index.dtype} of shape {tuple(index.shape)}")
        return index.to(torch.int64).contiguous()
    slots = np.asarray(index)
    if slots.ndim != 1 or (slots.size and slots.dtype.kind not in "iu"):
        raise TypeError(f"index must be {accepted}, got {slots.dtype} of shape {slots.shape}")
    for slot in slots:
        if not 0 <= slot < size:
            raise ValueError(f"index must be {accepted}, got {slot}")
    return slots.astype(np.int64)


def pack(
    params: SamplingParams | Sequence[SamplingParams] | PackedParams | None,
    device: str | torch.device | None = None,
) -> PackedParams:
    """Check parameters once and lay them out for a batch: one SamplingParams for all rows, or one per row.

    device: where a GPU backend keeps them; by default the logits' device.
    Raises: TypeError for anything but SamplingParams, ValueError for an unknown device.

    >>> len(pack([SamplingParams(), SamplingParams(top_k=5)]).params)
    2
    """
    if device is not None:
        return PackedParams(pack(params).params, checked_device(device))
    if isinstance(params, PackedParams):
        return params
    if params is None or isinstance(params, SamplingParams):
        return (params or PLAIN).packed
    rows = tuple(params) if isinstance(params, Sequence) else (params,)
    for row in rows:
        if not isinstance(row, SamplingParams):
            raise TypeError(f"params must be SamplingParams or a sequence of them, got {type(row).__name__}")
    return PackedParams(rows)


def checked_device(device: str | torch.device) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be a torch device such as 'cpu' or 'cuda:0', got {device!r}") from None


def numbers(p: SamplingParams) -> tuple[float | int, ...]:
    """One row of the table, in ROW's order."""
    return (
        p.temperature or 1.0,
        1 / p.temperature if p.temperature else 0.0,
        p.repetition_penalty,
        p.presence_penalty,
        p.frequency_penalty,
        0.0,
        bits_of_count(p.min_tokens_to_keep),
        *(f.slots[slot](getattr(p, f.name)) for slot, f in SLOTS.items()),
    )


def number(name: str, value: Any, accepted: str) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, {accepted}, got {value!r} of type {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:  # an int beyond float64 is out of every range; the caller reports it
        return -math.inf if value < 0 else math.inf


def within(name: str, value: float, accepted: Range) -> float:
    if value not in accepted:
        raise ValueError(f"{name} must be {accepted.text}, got {value!r}")
    return value


def integer(name: str, value: Any, least: int | None = None) -> int:
    accepted = "an integer" if least is None else f"an integer >= {least}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be {accepted}, got {value!r} of type {type(value).__name__}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be {accepted}, got {value!r}")
    return int(value)


def checked_bias(bias: Any) -> Mapping[int, float] | None:
    if bias is None:
        return None
    if not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias must be a mapping of token id to number, got {type(bias).__name__}")
    checked = {}
    for token, value in bias.items():
        token = integer("logit_bias: a token id", token, 0)
        value = number(f"logit_bias[{token}]", value, "finite in float32 or -inf")
        if value != -math.inf and not abs(value) <= FLOAT32_MAX:
            raise ValueError(f"logit_bias[{token}] must be finite in float32 or -inf, got {value!r}")
        checked[token] = value
    return Bias(checked)


PLAIN = SamplingParams()  # softmax(logits)
