import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float32] | NDArray[np.int16]  # 16 bits come as int16, with their type's name

class Linear:
    def __init__(
        self, panels: Numbers, kind: str, outputs: int, inputs: int, bias: NDArray[np.float32] | None
    ) -> None: ...
    def __call__(self, x: NDArray[np.float32], threads: int) -> NDArray[np.float32]: ...
    def unpack(self) -> Numbers: ...

class Llama:
    def __init__(
        self,
        heads: int,
        shared_heads: int,
        head_size: int,
        inner: int,
        eps: float,
        frequencies: NDArray[np.float32],
        rows: Numbers,
        kind: str,
        vocabulary: int,
        tied: Linear | None,
        norm: NDArray[np.float32],
    ) -> None: ...
    def add_layer(
        self,
        qkv: Linear,
        out: Linear,
        gate_up: Linear,
        down: Linear,
        input_norm: NDArray[np.float32],
        post_attention_norm: NDArray[np.float32],
    ) -> None: ...
    @property
    def block_size(self) -> int: ...
    def forward(
        self,
        ids: NDArray[np.int64],
        sequences: NDArray[np.int64],
        positions: NDArray[np.int64],
        table: NDArray[np.int32],
        slabs: list[NDArray[np.float32]],
        shift: int,
        threads: int,
    ) -> NDArray[np.float32]: ...

def panel_size(outputs: int, inputs: int) -> int: ...
def pack(weights: Numbers, kind: str, panels: Numbers) -> None: ...
def angles(radians: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def available_isas() -> list[str]: ...
def isa_in_use() -> str: ...
def use_isa(name: str) -> None: ...
