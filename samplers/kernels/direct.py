"""Launches of compiled kernels.

Before each launch Triton compares some eighty constants with those that the kernel was compiled with, which takes
longer than many a draw. So a kernel that Triton has compiled and launched once is launched directly from then on.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from triton.compiler import CompiledKernel

# Triton fuses only the operations that are written as fma.
OPTIONS = {"enable_fp_fusion": False}


class Kernel:
    """A kernel with the compiled form of each of its variants.

    key: of a launch, everything that the machine code depends on: the device, the types of the arguments, which of
    them Triton specializes, and the constants.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.compiled: dict[Hashable, CompiledKernel] = {}

    def launch(self, key: Hashable, grid: tuple[int, int, int], num_warps: int, *arguments: Any) -> None:
        """arguments: all parameters in order, with the constants."""
        compiled = self.compiled.get(key)
        if compiled is not None:
            compiled[grid](*arguments)
            return
        compiled = self.function[grid](*arguments, num_warps=num_warps, **OPTIONS)
        if compiled is not None:  # None: the interpreter compiles nothing
            self.compiled[key] = compiled
