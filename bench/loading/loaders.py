"""The loaders that are compared, ours and transformers'; both must give the same logits before they are timed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.loading.schemes import SCHEMES, Scheme
from model import Llama
from model.loading import quantization
from model.versions import installed

PROMPT = [[1, 5, 9, 2, 7, 60, 33, 5]]
TOLERANCE = 1e-4  # of logits of about 1, in float32
INT8_TOLERANCE = 0.05  # of int8, whose product rounds its input too

Load = Callable[[Path, Scheme], Any]  # -> a model


def load_ours(folder: Path, scheme: Scheme) -> Any:
    dtype = getattr(torch, scheme.dtype)
    quantize, weights = scheme.quantize, None if scheme.quantize else dtype  # as stored, float32 would stay in 16 bits
    return Llama.from_pretrained(folder, dtype, quantize=quantize, double_quant=scheme.double_quant, weights=weights)


def load_transformers(folder: Path, scheme: Scheme) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    more: dict[str, Any] = {}
    if scheme.quantize is not None:
        quantization.library()  # for its silence
    if scheme.quantize == "int8":
        more["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif scheme.quantize is not None:
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=scheme.quantize,
            bnb_4bit_use_double_quant=scheme.double_quant,
            bnb_4bit_compute_dtype=scheme.dtype,
        )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=scheme.dtype, local_files_only=True, **more)


LOADERS: dict[str, Load] = {"alea": load_ours, "transformers": load_transformers}


def skipped(names: Iterable[str], dtype: str) -> dict[str, str]:
    """Loaders that can't be measured, and why."""
    without = {name: "not asked for" for name in LOADERS if name not in names}
    if SCHEMES[dtype].quantize is not None and installed("accelerate") is None:
        without["transformers"] = "accelerate is not installed"
    return without


def check_logits(folder: Path, dtype: str) -> None:
    """The weights must give the same logits in float32, or nothing is timed."""
    found, scheme = {}, SCHEMES[dtype]
    for name, load in LOADERS.items():
        if scheme.quantize is None:
            llama = load(folder, scheme).float()
        else:
            llama = load(folder, replace(scheme, dtype="float32"))
            for module in llama.modules():  # its kernel for some CPUs rounds to bfloat16, and does not take all shapes
                module.support_avx512bf16_for_cpu = False
        with torch.inference_mode():
            output = llama(torch.tensor(PROMPT))
        found[name] = getattr(output, "logits", output)
    expected = found["alea"]
    tolerance = INT8_TOLERANCE if scheme.quantize == "int8" else TOLERANCE
    for name, logits in found.items():
        if not torch.allclose(logits, expected, rtol=tolerance, atol=tolerance):
            most = (logits - expected).abs().max().item()
            raise RuntimeError(f"{name} and alea differ in logits by up to {most:.3g}; nothing was measured")
