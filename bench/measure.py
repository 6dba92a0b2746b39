"""Timing that can be compared: interleaved rounds in one process, quantiles, and the circumstances of each record."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model import files
from model.versions import DISTRIBUTION, installed

RESULTS = Path(__file__).parent / "results"
PACKAGES = (DISTRIBUTION, "torch", "transformers", "bitsandbytes", "numpy")


def interleaved(functions: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Seconds of every call, by name; each round calls all, so that drift of the machine hits all alike."""
    for _ in range(warm_up):
        for function in functions.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds):
        names = list(functions) if number % 2 == 0 else list(functions)[::-1]
        for name in names:
            began = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def quantiles(values: list[float]) -> dict[str, float]:
    """p20, p50 and p80, to four digits; one value is all three of them.

    >>> quantiles([4.0, 1.0, 2.0, 3.0, 5.0, 6.0])
    {'p20': 2.0, 'p50': 3.5, 'p80': 5.0}
    >>> quantiles([0.123456])
    {'p20': 0.1235, 'p50': 0.1235, 'p80': 0.1235}
    """
    deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return {f"p{q}": float(f"{deciles[q // 10 - 1]:.4g}") for q in (20, 50, 80)}


def circumstances() -> dict[str, Any]:
    """What a figure depends on besides the code that was measured."""
    import torch

    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": git("rev-parse", "--short=12", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--untracked-files=no")),
        "machine": {
            "cpu": cpu_name(),
            "threads": torch.get_num_threads(),
            "isa": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": {"python": platform.python_version()} | {name: installed(name) for name in PACKAGES},
    }


def append(name: str, records: list[dict[str, Any]]) -> Path:
    """Add records to `results/name.jsonl`, one JSON line each."""
    path = RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.append(path, "".join(json.dumps(record) + "\n" for record in records))
    return path


def git(*arguments: str) -> str:
    try:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
