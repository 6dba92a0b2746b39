"""Compiles the kernels for GPUs that are not here, each as `samplers.kernels.launch` launches it, and reads the code.

For a process that starts without TRITON_INTERPRET: the interpreter's kernels can't be compiled.
"""

from __future__ import annotations

import contextlib
import io
import time
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from bench.kernels import assembly
from bench.kernels.variants import Variant
from bench.records import Record, four_digits
from samplers import SamplingParams
from samplers.backends import triton
from samplers.batch import Batch
from samplers.kernels import launch, one_read
from samplers.kernels.streaming import LANE
from samplers.kernels.ways import ONE_READ, WAYS, Division, Way

ROWS = 16

Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]  # a JITFunction, its arguments, its options


class Launched(Exception):
    """Stops the launcher at the wanted launch; its arguments are the Launch."""


def measured(variant: Variant, target: GPUTarget, **options: Any) -> Record:
    """The compiler's output for a variant; `options` overrule the launcher's, for a test of the readers."""
    function, arguments, own = launch_of(variant)
    began = time.perf_counter()
    kernel, log = compiled((function, arguments, own | options), target)
    seconds = four_digits(time.perf_counter() - began)
    if target.backend == "cuda":
        found = read_nvidia(kernel, log, variant)
    else:
        found = assembly.amd_figures(kernel.asm["amdgcn"]) | assembly.float32_in_llvm(kernel.asm["llir"])
    return {"seconds": seconds, "shared": kernel.metadata.shared, **found}


def launch_of(variant: Variant) -> Launch:
    """The launch of the variant's kernel by the launcher itself, for a batch on the CPU; nothing runs."""

    def record(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        if kernel.fn.__name__ == variant.kernel:
            raise Launched(kernel, arguments, options)

    with (
        mock.patch.object(JITFunction, "run", record),
        mock.patch.object(triton, "device_of", lambda _: torch.device("cpu")),
        mock.patch.object(launch, "division", lambda *_: Division(way_of(variant), tiles=4, parts=1, words=1 << 16)),
        mock.patch.object(one_read, "is_used", lambda *_: variant.kernel == "one_read_kernel"),
    ):
        try:
            enter(variant)
        except Launched as launched:
            return cast(Launch, launched.args)
    raise RuntimeError(f"the launcher must launch {variant.kernel} for {variant}, got no such launch")


def way_of(variant: Variant) -> Way:
    return ONE_READ if variant.kernel == "one_read_kernel" else WAYS[0]


def enter(variant: Variant) -> None:
    """Calls the function that launches the kernel."""
    if variant.kernel in ("weights_kernel", "floors_kernel"):
        (launch.weights if variant.kernel == "weights_kernel" else launch.floors)(torch.zeros(ROWS))
    elif variant.kernel == "filtered_kernel" or variant.purpose == "limits":
        triton.filter_logits(batch(variant))
    else:
        triton.sample(batch(variant), variant.details)


def batch(variant: Variant) -> Batch:
    """Rows for which the launcher launches the kernel: the same parameters for all, a stream for each."""
    has_bias, has_history = "bias" in variant.changes, "history" in variant.changes
    masks = {
        "allowed": torch.ones(variant.vocabulary, dtype=torch.bool),
        "allowed bits": torch.ones(-(-variant.vocabulary // 32), dtype=torch.int32),
    }
    return Batch(
        torch.zeros((ROWS, variant.vocabulary), dtype=getattr(torch, variant.dtype)),
        SamplingParams(
            top_p=1.0 if variant.purpose == "draw" else 0.9,
            logit_bias={1: 0.5} if has_bias else None,
            repetition_penalty=1.1 if has_history else 1.0,
        ),
        history=[[1, 2]] * ROWS if has_history else None,
        allowed=next((mask for name, mask in masks.items() if name in variant.changes), None),
    )


def compiled(launched: Launch, target: GPUTarget) -> tuple[Any, str]:
    """The kernel as Triton compiles it at such a launch, and the log of ptxas for this very binary."""
    function, arguments, options = launched
    if target.backend == "hip":
        options = {name: value for name, value in options.items() if name != "maxnreg"}  # as direct.py on such GPUs
    stub = SimpleNamespace(
        get_current_target=lambda: target,
        get_current_device=lambda: str(target),  # compiled kernels are kept by device
        get_current_stream=lambda device: 0,
        get_active_torch_device=lambda: torch.device("cpu"),
    )
    log = io.StringIO()
    with (
        mock.patch.object(driver, "_active", stub),  # not `active`, which would look for a GPU
        mock.patch.object(knobs.nvidia, "dump_ptxas_log", True),
        contextlib.redirect_stdout(log),
    ):
        kernel = function.warmup(*arguments, grid=(1,), **options)
    return kernel, log.getvalue()


def read_nvidia(kernel: Any, log: str, variant: Variant) -> Record:
    sass = assembly.disassembled(kernel.asm["cubin"], knobs.nvidia.nvdisasm.path)
    itemsize = getattr(torch, variant.dtype).itemsize
    a_turn = way_of(variant).steps * LANE.value // 32
    return {
        **assembly.ptxas_figures(log),
        **assembly.float32_in_ptx(kernel.asm["ptx"]),
        "loops": assembly.streaming_loops(sass, itemsize, a_turn),
        **({"whole": assembly.whole_program(sass, a_turn)} if variant.kernel == "one_read_kernel" else {}),
    }
