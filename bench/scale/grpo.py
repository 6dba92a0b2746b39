"""Measures the rollouts of `docs/examples/grpo.py`: the draw's logprobs beside those that trl computes.

    python -m bench.scale.grpo --save

Needs `pip install trl==1.16.0`. It takes two minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import samplers.hf.fused
from bench import runner
from bench.records import Record, four_digits
from samplers import SamplingParams, filter_logits, hf

EXAMPLE = Path(__file__).parents[2] / "docs/examples/grpo.py"
TEXTS, TOKENS = 4, 64  # of a prompt, and of a text
CHAINS: dict[str, dict[str, Any]] = {
    "T = 1": {},
    "T = 0.7": {"temperature": 0.7},
    "top-p 0.9": {"top_p": 0.9},
    "top-k 50": {"top_k": 50},
    "min-p 0.05": {"min_p": 0.05},
    "T = 0.7, top-p 0.9": {"temperature": 0.7, "top_p": 0.9},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="append the records to bench/results/grpo.jsonl")
    save = parser.parse_args().save
    torch.set_num_threads(1)

    def show(record: Record) -> None:
        print(json.dumps(record), flush=True)

    runner.collect("grpo", CHAINS, compared, save, show)
    runner.collect("grpo", [None, 7], repeated, save, show)
    runner.collect("grpo", [40], learned, save, show)
    return 0


def compared(chain: str) -> Record:
    """trl's logprobs of the tokens drawn, minus the engine's: from the same logits, and from trl's own forward pass.

    The ratio is exp of that difference, by token and by text; trl's importance sampling multiplies by it.
    """
    options = CHAINS[chain]
    with trainer(**options) as trained, recorded() as draws:
        batch = rollout(trained)
        counts = batch["completion_mask"].bool()  # all up to the end of each text
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
        with torch.no_grad():
            own_pass, *_ = trained._get_per_token_logps_and_entropies(trained.model, ids, mask, counts.shape[1])
    logits, tokens, logprobs = (column[:, : counts.shape[1]] for column in draws.columns())
    if not torch.equal(tokens[counts], batch["completion_ids"][counts]):
        raise RuntimeError("trl must train on the tokens that the engine drew, got others")
    same_logits = trl_logprobs(logits, tokens, options.get("temperature", 1.0)) - logprobs
    kept = filter_logits(logits.flatten(0, 1), SamplingParams(**options)).view(logits.shape)
    difference = {
        "same_logits": same_logits,
        "own_pass": own_pass - logprobs,
        "same_logits_over_kept": trl_logprobs(kept, tokens) - logprobs,
    }
    return {
        "measured": "logprobs",
        "chain": chain,
        "texts": len(counts),
        "different_texts": len(set(map(tuple, batch["completion_ids"].tolist()))),
        "tokens": int(counts.sum()),
        "greatest_difference": {name: four_digits(d[counts].abs().max().item()) for name, d in difference.items()},
        "ratio": {"token": ratio(same_logits[counts]), "text": ratio((same_logits * counts).sum(1))},
    }


def repeated(seed: int | None) -> Record:
    """How many tokens two rollouts of an unchanged model have in common, attached with this seed."""
    with trainer() as trained:
        hf.attach(trained.model, seed=seed)
        first, second = (rollout(trained)["completion_ids"] for _ in range(2))
    length = min(first.shape[1], second.shape[1])
    equal = int((first[:, :length] == second[:, :length]).sum())
    return {"measured": "repeated rollouts", "seed": seed, "tokens": len(first) * length, "equal": equal}


def learned(steps: int) -> Record:
    """The mean reward of each ten steps of the example, run twice."""
    rewards = []
    for _ in range(2):
        with trainer(max_steps=steps, max_completion_length=32) as trained:
            trained.train()
            history = trained.state.log_history
            rewards.append([four_digits(line["reward"]) for line in history if "reward" in line])
    seconds = four_digits(history[-1]["train_runtime"])
    return {"measured": "learning", "steps": steps, "seconds": seconds, "reward": rewards[0], "again": rewards[1]}


@contextmanager
def trainer(**options: Any) -> Iterator[Any]:
    """The example's."""
    with tempfile.TemporaryDirectory() as folder:
        make = runpy.run_path(str(EXAMPLE))["trainer"]
        yield make(folder, **{"disable_tqdm": True, "max_completion_length": TOKENS} | options)


def rollout(trained: Any) -> dict[str, torch.Tensor]:
    """What trl trains on in a step."""
    prompts = trained.train_dataset.unique("prompt")
    batch: dict[str, torch.Tensor] = trained._generate_and_score_completions(
        [{"prompt": text} for text in prompts for _ in range(TEXTS)]
    )
    return batch


class Draws:
    """The draws of a rollout, step by step: logits [B, V], tokens int64 [B], logprobs float32 [B]."""

    def __init__(self) -> None:
        self.steps: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def columns(self) -> tuple[torch.Tensor, ...]:
        """Logits [B, L, V], tokens and logprobs [B, L]."""
        return tuple(torch.stack(column, 1) for column in zip(*self.steps, strict=True))


@contextmanager
def recorded() -> Iterator[Draws]:
    """Keep what attached models draw, and the logits that they draw from."""
    draws, sample = Draws(), samplers.hf.fused.sample

    def sample_and_keep(logits: torch.Tensor, *arguments: Any, **keywords: Any) -> Any:
        out = sample(logits, *arguments, **keywords)
        draws.steps.append((logits.clone(), out.tokens, out.logprobs))
        return out

    with mock.patch.object(samplers.hf.fused, "sample", sample_and_keep):
        yield draws


def trl_logprobs(logits: torch.Tensor, tokens: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    from trl.trainer.utils import selective_log_softmax

    scores: torch.Tensor = selective_log_softmax(logits, tokens, temperature)
    return scores


def ratio(difference: torch.Tensor) -> dict[str, float]:
    """
    >>> ratio(torch.log(torch.tensor([0.5, 1.0])))
    {'mean': 0.75, 'least': 0.5}
    """
    ratios = difference.double().exp()
    return {"mean": four_digits(ratios.mean().item()), "least": four_digits(ratios.min().item())}


if __name__ == "__main__":
    sys.exit(main())
