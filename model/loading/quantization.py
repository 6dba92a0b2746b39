"""Quantizes the layers' matrices to 8 or 4 bits with bitsandbytes; embedding, norms, biases and lm_head stay floats.

int8 (Dettmers et al. 2022, LLM.int8(), sect. 3): w = q · s / 127, where s is the greatest |w| of the row. The product
also rounds its input to 8 bits, except the columns in which any token of the call reaches 6. The other texts of a batch
can therefore change a logit slightly.

nf4, fp4 (Dettmers et al. 2023, QLoRA, sect. 3): w = c · s, where s is the greatest |w| of a block of 64 weights and c
one of 16 numbers: quantiles of the normal distribution for nf4, signed 3-bit floats for fp4. Double quantization
subtracts the mean over the matrix from s and stores the rest in 8 bits, with a float32 scale for every 256 values.

As in transformers, every stored tensor is quantized separately: no block and no mean spans two tensors.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.llama import Llama, Stacked
from model.loading.blank import blank
from model.loading.checkpoint import Layout
from samplers.extras import how_to_install

SCHEMES = ("int8", "nf4", "fp4")
BLOCK = 64  # weights that share a scale in 4 bits
OUTLIER = 6.0  # |input| from which a column counts in full (Dettmers et al. 2022, sect. 3.2)
AT_ONCE = 1 << 16  # weights quantized at a time: the temporary copies fit in the processor's cache
HARMLESS = ("Failed to load CPU gemm_4bit_forward", "MatMul8bitLt: inputs will be cast")  # the user cannot act on these


def check(quantize: str | None, double_quant: bool) -> None:
    """Check the arguments before anything is read.

    Raises: ValueError naming the parameter; RuntimeError if bitsandbytes is not installed.

    >>> check("nf4", double_quant=True)
    >>> check("int8", double_quant=True)
    Traceback (most recent call last):
    ValueError: double_quant must go with quantize='nf4' or 'fp4', got quantize='int8'
    """
    if quantize is not None and quantize not in SCHEMES:
        raise ValueError(f"quantize must be one of {', '.join(SCHEMES)}, or None, got {quantize!r}")
    if double_quant and quantize not in ("nf4", "fp4"):
        raise ValueError(f"double_quant must go with quantize='nf4' or 'fp4', got quantize={quantize!r}")
    if quantize is not None and find_spec("bitsandbytes") is None:
        raise RuntimeError(f"quantize={quantize!r} needs bitsandbytes: {how_to_install('quant')}")


def library() -> Any:
    """bitsandbytes, without its warnings about an optional package and about float16 at every int8 product."""
    for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).addFilter(worth_showing)  # idempotent
    import bitsandbytes

    return bitsandbytes


def worth_showing(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(HARMLESS)


@functools.cache
def unaligned() -> Any:
    """A Linear4bit for sizes that bitsandbytes' CPU kernels do not support: it dequantizes the weight at each call.

    In bitsandbytes 0.50 the AVX512-BF16 kernel fails an assertion unless the rows are a multiple of 32, and the other
    kernel mixes up the scales unless the columns are a multiple of the block.
    """

    class Unaligned(library().nn.Linear4bit):  # type: ignore[misc]  # known only after the import
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, dequantized(self).to(x.dtype), self.bias)

    return Unaligned


class UnstackedProjections(nn.ModuleDict):
    """The projections of a `Stacked` as separate modules; the outputs keep their order."""

    def forward(self, x: Tensor) -> Tensor:  # [B, L, E] -> [B, L, sum of the parts]
        return torch.cat([projection(x) for projection in self.values()], dim=-1)


def prepare(model: Llama, quantize: str, double_quant: bool, dtype: torch.dtype) -> None:
    """Replace the layers' projections by empty ones of bitsandbytes, to be filled with `quantized`.

    Args: model on the meta device; quantize and double_quant as `check` accepts them; dtype of the other weights.
    """

    def empty(rows: int, columns: int, bias: bool) -> nn.Linear:
        bnb = library()
        if quantize == "int8":
            return bnb.nn.Linear8bitLt(columns, rows, bias, has_fp16_weights=False, threshold=OUTLIER)
        kind = unaligned() if rows % 32 or columns % BLOCK else bnb.nn.Linear4bit
        return kind(columns, rows, bias, compute_dtype=dtype, compress_statistics=double_quant, quant_type=quantize)

    with blank():
        for name, old in list(model.layers.named_modules()):
            if isinstance(old, Stacked):
                parts = {part: empty(rows, old.in_features, old.bias is not None) for part, rows in old.parts.items()}
                model.layers.set_submodule(name, UnstackedProjections(parts))
            elif isinstance(old, nn.Linear):
                model.layers.set_submodule(name, empty(old.out_features, old.in_features, old.bias is not None))


def unstacked(sources: Layout) -> Layout:
    """The layout of the model after `prepare`, where each stored tensor is a parameter."""
    separate: Layout = {}
    for name, parts in sources.items():
        module, _, leaf = name.rpartition(".")
        for stored, shape in parts.items():
            part = stored.split(".")[-2]
            separate[f"{module}.{part}.{leaf}" if len(parts) > 1 else name] = {stored: shape}
    return separate


def quantized(linear: Any, weight: Tensor) -> nn.Parameter:
    """The quantized weight: bit for bit as bitsandbytes quantizes it, in less memory.

    Args: linear, a projection from `prepare`; weight [rows, columns], float32, float16 or bfloat16.
    """
    return in_8_bits(weight) if isinstance(linear, library().nn.Linear8bitLt) else in_4_bits(linear, weight)


def in_8_bits(weight: Tensor) -> nn.Parameter:
    """Row by row, through float16 as in bitsandbytes."""
    bnb = library()
    numbers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)  # float32, one a row
    step = max(1, AT_ONCE // weight.shape[1])
    for piece, number, scale in zip(weight.split(step), numbers.split(step), scales.split(step), strict=True):
        quantized_piece, piece_scale, _ = bnb.functional.int8_vectorwise_quant(piece.half())
        number.copy_(quantized_piece)
        scale.copy_(piece_scale)
    return bnb.nn.Int8Params(numbers, requires_grad=False, has_fp16_weights=False, CB=numbers, SCB=scales)


def in_4_bits(linear: Any, weight: Tensor) -> nn.Parameter:
    """Block by block, along the rows one after the other."""
    bnb = library()
    kind, double_quant = linear.weight.quant_type, linear.weight.compress_statistics
    packed = torch.empty(-(-weight.numel() // 2), 1, dtype=torch.uint8, device=weight.device)  # two in a byte
    scales = torch.empty(-(-weight.numel() // BLOCK), device=weight.device)  # float32
    targets = packed.split(AT_ONCE // 2), scales.split(AT_ONCE // BLOCK)
    for piece, numbers, scale in zip(weight.flatten().split(AT_ONCE), *targets, strict=True):
        packed_piece, state = bnb.functional.quantize_4bit(piece, quant_type=kind)
        numbers.copy_(packed_piece)
        scale.copy_(state.absmax)
    offset, second = None, None
    if double_quant:
        offset = scales.mean()
        scales, second = bnb.functional.quantize_blockwise(scales - offset, blocksize=256)
    whole = bnb.functional.QuantState(
        scales, weight.shape, state.code, BLOCK, kind, weight.dtype, offset=offset, state2=second
    )
    return bnb.nn.Params4bit(
        packed,
        quant_state=whole,
        blocksize=BLOCK,
        compress_statistics=double_quant,
        quant_type=kind,
        module=linear,
        bnb_quantized=True,
    )


def trim_heap() -> None:
    """Return the memory that quantizing freed to the system: glibc would keep about 4 % of a 4-bit model."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


def dequantized(linear: Any) -> Tensor:
    """The dense weight [rows, columns] of a quantized projection.

    float32 for int8; for 4 bits the dtype that was quantized. On a CPU with AVX512-BF16 the first forward pass repacks
    the 4 bits and rounds their scales to bfloat16; from then on the weight is bfloat16.
    """
    bnb = library()
    if linear.weight.dtype == torch.int8:
        scales = linear.weight.SCB if linear.state.SCB is None else linear.state.SCB
        return bnb.functional.int8_vectorwise_dequant(linear.weight.data, scales)
    packed, state = linear.weight.data, linear.weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):  # cannot be undone; state_dict() would lose the scales' order
        identity = torch.eye(linear.in_features, dtype=torch.bfloat16)
        return bnb.matmul_4bit(identity, packed, quant_state=state).t()
    row = (1, 2 * packed.numel())  # a single row: on a CPU a block that spans two rows would come out wrong
    flat = bnb.functional.QuantState(
        state.absmax, row, state.code, BLOCK, state.quant_type, state.dtype, offset=state.offset, state2=state.state2
    )
    return bnb.functional.dequantize_4bit(packed, flat).flatten()[: state.shape.numel()].view(state.shape)
