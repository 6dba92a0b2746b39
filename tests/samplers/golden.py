"""The golden rows of docs/definition.md, worked out by independent big-integer arithmetic, as arguments of `sample`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from samplers import SamplingParams

DATA = Path(__file__).parents[1] / "data"


@dataclass
class GoldenRow:
    logits: np.ndarray
    params: SamplingParams
    drawn: tuple[int, int, int, int]  # token, weight, total, kept
    kept_digest: str | None
    bits: int | None
    penalised: np.ndarray | None
    seeds: dict[str, int]
    changes: dict[str, Any] = field(default_factory=dict)  # history, history_start, allowed


def read(name: str) -> list[GoldenRow]:
    return [golden_row(json.loads(line)) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]


def golden_row(raw: dict[str, Any]) -> GoldenRow:
    bias = {int(token): number(value) for token, value in raw.get("logit_bias", {}).items()}
    logits = numbers(raw["logits"])
    changes: dict[str, Any] = {}
    if "history" in raw:
        changes = {"history": [raw["history"]], "history_start": raw["history_start"]}
    if raw.get("allowed") is not None:
        changes["allowed"] = np.isin(np.arange(len(logits)), raw["allowed"])
    valid = not raw.get("invalid")
    return GoldenRow(
        logits=logits,
        params=SamplingParams(**raw["params"], logit_bias=bias or None),
        drawn=(raw["token"], raw["weight"], raw["total"], raw["kept"]) if valid else (-1, 0, 0, 0),
        kept_digest=raw["kept_sha"] if valid else None,
        bits=int(raw["r64"]) if "r64" in raw else None,
        penalised=numbers(raw["penalised"]) if "penalised" in raw else None,
        seeds={name: raw[name] for name in ("seed", "position", "stream")},
        changes=changes,
    )


def number(value: str | float) -> float:
    return float.fromhex(value) if isinstance(value, str) else value


def numbers(values: list[str | float]) -> np.ndarray:
    return np.array([number(v) for v in values], np.float32)


def digest(kept: np.ndarray) -> str:
    """A kept set, bool [V], as the golden rows write it."""
    return hashlib.sha256(np.packbits(kept, bitorder="little").tobytes()).hexdigest()[:16]


def read_weights() -> tuple[np.ndarray, np.ndarray]:
    """The golden weights: float32 d and int64 w, [1525]."""
    pairs = [json.loads(line) for line in (DATA / "weights.jsonl").read_text().splitlines()]
    return numbers([pair["d"] for pair in pairs]), np.array([pair["w"] for pair in pairs], np.int64)
