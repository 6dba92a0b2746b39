"""Trains the storyteller with trl's GRPO to say little with the letter e; this engine draws the texts that it tries.

pip install trl==1.16.0
python docs/examples/grpo.py
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from samplers import hf

MODEL = "model/storyteller"
PROMPTS = ["Once upon a time", "The king", "There was once a", "In the wood"]


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of words without an e."""
    words = [text.lower().split() for text in completions]
    return [sum("e" not in word for word in text) / max(len(text), 1) for text in words]


def trainer(folder: str, **options: Any) -> GRPOTrainer:
    """options: of GRPOConfig. The model is attached without a seed: each rollout then has random numbers of its own."""
    model = hf.attach(AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32))
    tokenizer = AutoTokenizer.from_pretrained(MODEL, padding_side="left")
    values = {
        "seed": 7,  # of everything, the rollouts included
        "temperature": 1.0,
        "num_generations": 4,
        "per_device_train_batch_size": 16,
        "max_completion_length": 32,
        "learning_rate": 3e-4,
        "max_steps": 40,
        "logging_steps": 10,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
    }
    config = GRPOConfig(folder, **values | options)
    prompts = Dataset.from_dict({"prompt": PROMPTS * 16})
    return GRPOTrainer(model, reward, config, train_dataset=prompts, processing_class=tokenizer)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trained = trainer(folder)
        trained.train()
        for line in trained.state.log_history:
            if "reward" in line:
                print(f"step {line['step']}: reward {line['reward']:.3f}")


if __name__ == "__main__":
    sys.exit(main())
