"""The C++ extension; csrc/bindings.cpp defines it."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from samplers.params import PackedParams, SamplingParams

Output = TypeVar("Output")
Ints = int | NDArray[np.int64] | None

class Parameters:
    def __init__(self, rows: NDArray[np.void]) -> None: ...

class Penalties:
    def __init__(
        self,
        bias_ids: NDArray[np.int64],
        bias_values: NDArray[np.float32],
        bias_offsets: NDArray[np.int64],
        history: NDArray[np.int64] | None,
        history_offsets: NDArray[np.int64] | None,
        history_start: NDArray[np.int64],
        allowed: NDArray[np.bool_ | np.int32] | None,
    ) -> None: ...

def sample(
    logits: NDArray[np.generic],
    params: Parameters,
    penalties: Penalties | None,
    seed: Ints,
    position: Ints,
    stream: Ints,
    details: bool,
    threads: int,
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int32],
    NDArray[np.float32],
    NDArray[np.float32] | None,
    NDArray[np.float32] | None,
    bool,
]: ...
def filter_logits(
    logits: NDArray[np.generic], params: Parameters, penalties: Penalties | None, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]: ...
def one_step(
    output: type[Output], params: type[SamplingParams], packed: type[PackedParams]
) -> Callable[[object, object, object, object, object], Output | None] | None: ...
def available_isas() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str) -> None: ...
def weights(d: NDArray[np.float32]) -> NDArray[np.int64]: ...
def fused_weights(d: NDArray[np.float32]) -> NDArray[np.int64]: ...
