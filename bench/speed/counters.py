"""Counts of a call: operators, waits for a GPU, and allocated memory; by torch's profiler.

A TorchDispatchMode would not see into operators: torch.multinomial is forty.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from bench.peers.base import DrawTokens

FUSED = "alea::sample"  # the name in the profile of a call of ours, which is no operator of torch
VIEWS = "alias as_strided detach lift_fresh real _reshape_alias resolve_conj resolve_neg to view"  # `to` the same dtype
BOOKKEEPING = {f"aten::{name}" for name in f"{VIEWS} empty empty_strided resize_".split()}  # touch no value of a tensor
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal"}  # at the bottom of .item(), bool() and x[mask]


def counted(draw: DrawTokens, naming: AbstractContextManager[Any] | None = None) -> dict[str, int]:
    """Operators of a call, those of them that compute, waits if it ran on a GPU, and bytes that it allocates.

    naming: a context in which calls of ours carry the name FUSED.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler announces itself on stderr
    with naming or nullcontext(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        draw(0)
    events = [event for event in profiler.events() if is_operator(event)]
    return {
        "operators": len(events),
        "computing_operators": sum(map(computes, events)),
        "host_syncs": sum(map(waits, events)),
        "allocated_bytes": sum(max(0, event.self_cpu_memory_usage) for event in events),
    }


def under_its_name(draw: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, seen by the profiler as FUSED."""

    def call(*arguments: Any) -> Any:
        with record_function(FUSED):
            return draw(*arguments)

    return call


def is_operator(event: Any) -> bool:
    return event.name.startswith("aten::") or event.name == FUSED


def computes(event: Any) -> bool:
    """Whether it reads or writes data itself, and not through other operators."""
    leaf = not any(map(is_operator, event.cpu_children))
    return event.name == FUSED or (leaf and event.name not in BOOKKEEPING)


def waits(event: Any) -> bool:
    """An asynchronous assertion reads its flag on a CPU; a GPU checks it without being waited for."""
    parent = event.cpu_parent
    while parent is not None and parent.name != "aten::_assert_async":
        parent = parent.cpu_parent
    return event.name in WAITS and parent is None
