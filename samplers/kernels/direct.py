"""Launches of compiled kernels.

Before each launch Triton compares some eighty constants with those that the kernel was compiled with, which takes
longer than many a draw. So a kernel that Triton has compiled and launched once is launched directly from then on.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from triton.compiler import CompiledKernel

# Triton fuses only the operations that are written as fma.
OPTIONS: dict[str, Any] = {"enable_fp_fusion": False}


class Kernel:
    """A kernel with the compiled form of each of its variants.

    registers: of a thread, at most; only NVIDIA's compiler takes such a limit.
    """

    def __init__(self, function: Any, registers: int | None = None) -> None:
        self.function = function
        self.options = OPTIONS if registers is None or torch.version.hip else OPTIONS | {"maxnreg": registers}
        self.compiled: dict[Hashable, CompiledKernel] = {}

    def launch(self, key: Hashable, grid: tuple[int, int, int], num_warps: int, *arguments: Any) -> None:
        """Launch the variant of this key.

        key: everything that the machine code depends on: the device, the types of the arguments, those that Triton
        specializes, and the constants. arguments: all parameters in order, with the constants.
        """
        compiled = self.compiled.get(key)
        if compiled is not None:
            compiled[grid](*arguments)
            return
        compiled = self.function[grid](*arguments, num_warps=num_warps, **self.options)
        if compiled is not None:  # None: the interpreter compiles nothing
            self.compiled[key] = compiled
