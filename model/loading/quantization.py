"""The layers' matrices in 8 or 4 bits, through bitsandbytes; embedding, norms, biases and lm_head stay as they are.

int8 (Dettmers et al. 2022, LLM.int8(), sect. 3): w = q · s / 127, where s is the greatest |w| of the row. The product
rounds its input to 8 bits as well, but for the columns where some token of the call reaches 6, which count in full:
what else is in the batch can therefore change a logit a little.

nf4, fp4 (Dettmers et al. 2023, QLoRA, sect. 3): w = c · s, where s is the greatest |w| of a block of 64 weights and c
one of 16 numbers: for nf4 spread as a normal distribution's quantiles are, for fp4 as floats of 3 bits with a sign.
Double quantisation keeps s in 8 bits, less its mean over the matrix, with a float32 for each 256 of them.

Every stored tensor is a matrix of its own, as in transformers, so that no block and no mean reaches across two.
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
from samplers.extras import how_to_install

SCHEMES = ("int8", "nf4", "fp4")
BLOCK = 64  # weights that share a scale in 4 bits
OUTLIER = 6.0  # |input| from which a column counts in full (Dettmers et al. 2022, sect. 3.2)
AT_ONCE = 1 << 16  # weights quantised at a time: their temporary copies stay in the processor's cache
KNOWN = ("Failed to load CPU gemm_4bit_forward", "MatMul8bitLt: inputs will be cast")  # not the user's to act on


def check(quantize: str | None, double_quant: bool) -> None:
    """Refuse what cannot be done here, before anything is read.

    Raises: ValueError naming the parameter; RuntimeError where bitsandbytes is not installed.

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
    """bitsandbytes, without its warnings of a package that it can do without, and of float16 at every int8 product."""
    for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).addFilter(worth_telling)  # a second time changes nothing
    import bitsandbytes

    return bitsandbytes


def worth_telling(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(KNOWN)


@functools.cache
def unaligned() -> Any:
    """bitsandbytes' Linear4bit for sizes that its kernels for CPUs do not take: it makes the whole weight at each call.

    In bitsandbytes 0.50 the kernel for AVX512-BF16 stops at an assertion where the rows are no multiple of 32, and the
    other one confuses the scales where the columns are no multiple of a block.
    """

    class Unaligned(library().nn.Linear4bit):  # type: ignore[misc]  # known when it is imported
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, dequantized(self).to(x.dtype), self.bias)

    return Unaligned


class Separate(nn.ModuleDict):
    """The projections of a `Stacked`, each a matrix of its own; their outputs stand in the same order."""

    def forward(self, x: Tensor) -> Tensor:  # [B, L, E] -> [B, L, sum of the parts]
        return torch.cat([projection(x) for projection in self.values()], dim=-1)


def prepare(model: Llama, quantize: str, double_quant: bool, dtype: torch.dtype) -> None:
    """Put bitsandbytes' empty projections in the place of the layers', for `quantized` to fill.

    Args: model on the meta device; quantize and double_quant as `check` allows; dtype of the rest.
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
                model.layers.set_submodule(name, Separate(parts))
            elif isinstance(old, nn.Linear):
                model.layers.set_submodule(name, empty(old.out_features, old.in_features, old.bias is not None))


def is_quantized(module: nn.Module) -> bool:
    """Whether it is a projection of bitsandbytes, which it answers without loading bitsandbytes."""
    return any(kind.__module__.startswith("bitsandbytes.") for kind in type(module).__mro__)


def quantized(linear: Any, weight: Tensor) -> nn.Parameter:
    """The weight as `linear` keeps it: what bitsandbytes makes of it as a whole, to the bit, in less memory.

    Args: linear, one of those of `prepare`; weight [rows, columns], float32, float16 or bfloat16.
    """
    return in_8_bits(weight) if isinstance(linear, library().nn.Linear8bitLt) else in_4_bits(linear, weight)


def in_8_bits(weight: Tensor) -> nn.Parameter:
    """Row by row; through float16, as bitsandbytes does it."""
    bnb = library()
    numbers = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(len(weight), device=weight.device)  # float32, one a row
    step = max(1, AT_ONCE // weight.shape[1])
    for piece, number, scale in zip(weight.split(step), numbers.split(step), scales.split(step), strict=True):
        found = bnb.functional.int8_vectorwise_quant(piece.half())
        number.copy_(found[0])
        scale.copy_(found[1])
    return bnb.nn.Int8Params(numbers, requires_grad=False, has_fp16_weights=False, CB=numbers, SCB=scales)


def in_4_bits(linear: Any, weight: Tensor) -> nn.Parameter:
    """Block by block, whose order is that of the weight's rows one after the other."""
    bnb = library()
    kind, double_quant = linear.weight.quant_type, linear.weight.compress_statistics
    packed = torch.empty(-(-weight.numel() // 2), 1, dtype=torch.uint8, device=weight.device)  # two in a byte
    scales = torch.empty(-(-weight.numel() // BLOCK), device=weight.device)  # float32
    targets = packed.split(AT_ONCE // 2), scales.split(AT_ONCE // BLOCK)
    for piece, numbers, scale in zip(weight.flatten().split(AT_ONCE), *targets, strict=True):
        found, state = bnb.functional.quantize_4bit(piece, quant_type=kind)
        numbers.copy_(found)
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


def give_back() -> None:
    """Return what quantising freed to the system: glibc would keep holes that come to 4 % of a model in 4 bits."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


def dequantized(linear: Any) -> Tensor:
    """The weight [rows, columns] that the numbers of a quantised projection stand for.

    It is float32 for int8, in 4 bits of the dtype that was quantised. On a CPU with AVX512-BF16 the first forward pass
    packs 4 bits anew and rounds their scales to bfloat16; from then on the weight is in bfloat16.
    """
    bnb = library()
    if linear.weight.dtype == torch.int8:
        scales = linear.weight.SCB if linear.state.SCB is None else linear.state.SCB
        return bnb.functional.int8_vectorwise_dequant(linear.weight.data, scales)
    packed, state = linear.weight.data, linear.weight.quant_state
    if getattr(state, "packing_format_for_cpu", False):  # nothing undoes it; state_dict() would lose the scales' order
        one_by_one = torch.eye(linear.in_features, dtype=torch.bfloat16)
        return bnb.matmul_4bit(one_by_one, packed, quant_state=state).t()
    row = (1, 2 * packed.numel())  # all in one row: with several, blocks that reach across two come out wrong on a CPU
    flat = bnb.functional.QuantState(
        state.absmax, row, state.code, BLOCK, state.quant_type, state.dtype, offset=state.offset, state2=state.state2
    )
    return bnb.functional.dequantize_4bit(packed, flat).flatten()[: state.shape.numel()].view(state.shape)
