"""Memory of the machine, of this process, and of a loaded model."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from model.packed import PackedLinear

MIB = 2**20
PAGE = 4096  # bytes


def available_mib() -> float:
    """Memory that can be had without swapping: Linux' own estimate, elsewhere the free pages."""
    with suppress(OSError, StopIteration):
        return proc_mib("meminfo", "MemAvailable")
    with suppress(ValueError, OSError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MIB
    return math.inf


def resident_mib(field: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process; without Linux' /proc the peak for both."""
    with suppress(OSError, StopIteration):
        return proc_mib("self/status", field)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)


def proc_mib(file: str, field: str) -> float:
    lines = Path("/proc", file).read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def forget_peak() -> None:
    """Lets VmHWM begin again from here, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def parameters(llama: Any) -> Iterator[Any]:
    """All parameters; of panels, the part that holds weights, without the padding of the last panel."""
    for name, parameter in llama.named_parameters():
        module = llama.get_submodule(name.rpartition(".")[0])
        is_packed = isinstance(module, PackedLinear) and name.endswith(".panels")
        yield parameter[: module.in_features * module.out_features] if is_packed else parameter


def weight_tensors(llama: Any) -> Iterator[Any]:
    """All tensors of the weights, with those of bitsandbytes' scales."""
    for parameter in parameters(llama):
        yield parameter.detach()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from [state.absmax, *([state.offset, state.state2.absmax] if state.nested else [])]
        elif getattr(parameter, "SCB", None) is not None:
            yield parameter.SCB


def count_weights(llama: Any) -> int:
    """The number of weights; in 4 bits a byte holds two."""
    states = ((parameter, getattr(parameter, "quant_state", None)) for parameter in parameters(llama))
    return sum(parameter.numel() if state is None else state.shape.numel() for parameter, state in states)


def read_pages(llama: Any) -> None:
    """Reads a byte of every page of the weights: none is left in a file."""
    for value in weight_tensors(llama):
        flat = (value if value.is_contiguous() else value.t()).reshape(-1)  # a view: t() undoes storage by columns
        flat.view(torch.uint8)[::PAGE].sum()
