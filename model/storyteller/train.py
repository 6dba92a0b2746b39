"""Train the built-in storyteller: `python -m model.storyteller.train --corpus FOLDER --out FOLDER`.

Muon (Jordan 2024) on the matrices, AdamW on embeddings and norms, bfloat16 matrix products on float32 weights. The
learning rate falls linearly to zero over a budget of wall-clock minutes; in the last quarter the windows are twice as
long. A checkpoint is saved every few minutes. The same command resumes from it, with the data shuffled again. Needs
torch 2.9 for Muon.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from sentencepiece import SentencePieceProcessor
from torch import Tensor, nn

from model import files
from model.config import LlamaConfig
from model.llama import Llama, Stacked
from model.loading.weights import stored_tensors
from model.storyteller.corpus import TrainingStream, held_out_texts, train_tokenizer, training_paragraphs
from model.storyteller.evaluate import bits_per_byte

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
GENERATION_CONFIG: dict[str, Any] = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "do_sample": True,
    "temperature": 0.8,
    "top_p": 0.95,
}
TOKENS_A_STEP = 4096
WARM_UP = 0.01  # of the budget
LONG_WINDOWS_FROM = 0.75  # of the budget


def main() -> None:
    arguments = parse_arguments()
    torch.manual_seed(0)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    tokenizer_path = out / "tokenizer.model"
    if not tokenizer_path.exists():
        train_tokenizer(arguments.corpus, tokenizer_path, CONFIG["vocab_size"])
    sp = SentencePieceProcessor(model_file=str(tokenizer_path))
    stream = TrainingStream(training_paragraphs(arguments.corpus), sp)
    probe = held_out_texts(arguments.corpus)[::4]
    run = Run(out, arguments.minutes, arguments.lr)
    print(f"{len(stream.stream):,} training tokens, {run.parameters():,} parameters", flush=True)

    saved, batches, length = time.monotonic(), None, 0
    while run.progress < 1:
        wanted = CONFIG["max_position_embeddings"] // (1 if run.progress >= LONG_WINDOWS_FROM else 2)
        if batches is None or wanted != length:
            length = wanted
            batches = stream.batches(TOKENS_A_STEP // length, length, np.random.default_rng(run.steps))
        run.step(batches)
        if time.monotonic() - saved > 60 * arguments.save_every:
            run.save()
            run.log(bits_per_byte=bits_per_byte(run.model, sp, probe))
            saved = time.monotonic()
    run.export()
    run.log(bits_per_byte=bits_per_byte(run.model, sp, held_out_texts(arguments.corpus)))


class Run:
    """A model, its two optimizers and the clock; `state.pt` in the output folder holds all of them."""

    def __init__(self, out: Path, minutes: float, lr: float) -> None:
        self.out, self.budget, self.lr = out, 60 * minutes, lr
        self.model = Llama(LlamaConfig.from_dict(CONFIG))
        initialise(self.model)
        self.matrices = {p: unstacked(p, m) for m in self.model.layers.modules() for p in own_matrices(m)}
        others = [self.model.embed_tokens.weight, *(p for p in self.model.parameters() if p.ndim == 1)]
        parts = [part for parts in self.matrices.values() for part in parts]
        self.optimizers = [
            torch.optim.Muon(parts, lr=lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0),
        ]
        self.steps, self.seconds = 0, 0.0
        self.losses: list[float] = []
        if (out / "state.pt").exists():
            self.load()

    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def progress(self) -> float:
        return self.seconds / self.budget

    def step(self, batches: Iterator[np.ndarray]) -> None:
        began = time.monotonic()
        rate = self.lr * min(self.progress / WARM_UP, 1.0) * (1 - self.progress)
        loss = self.loss(torch.from_numpy(next(batches)))
        loss.backward()
        for matrix, parts in self.matrices.items():
            assert matrix.grad is not None
            for part, gradient in zip(parts, matrix.grad.split([len(p) for p in parts]), strict=True):
                part.grad = gradient
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.losses.append(loss.item())
        self.steps += 1
        self.seconds += time.monotonic() - began
        if self.steps % 100 == 0:
            self.log()

    def loss(self, ids: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model(ids[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def log(self, **more: float) -> None:
        recent = sum(self.losses[-100:]) / max(1, len(self.losses[-100:]))
        line = {
            "step": self.steps,
            "minutes": round(self.seconds / 60, 2),
            "loss": round(recent, 4),
            "tokens_a_second": round(self.steps * TOKENS_A_STEP / max(self.seconds, 1e-9)),
            **{name: round(value, 4) for name, value in more.items()},
        }
        print(json.dumps(line), flush=True)
        files.append(self.out / "log.jsonl", json.dumps(line) + "\n")

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "steps": self.steps,
            "seconds": self.seconds,
        }
        torch.save(state, self.out / "state.part")
        (self.out / "state.part").replace(self.out / "state.pt")

    def load(self) -> None:
        state = torch.load(self.out / "state.pt", weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.seconds = state["steps"], state["seconds"]

    def export(self) -> None:
        """Write the folder that `Llama.from_pretrained` and transformers read, with weights in bfloat16."""
        weights = {name: w.to(torch.bfloat16).contiguous() for name, w in stored_tensors(self.model).items()}
        files.replace(self.out / "model.safetensors", save(weights, metadata={"format": "pt"}))
        files.replace(self.out / "config.json", json.dumps(CONFIG, indent=2) + "\n")
        files.replace(self.out / "generation_config.json", json.dumps(GENERATION_CONFIG, indent=2) + "\n")


def own_matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters(recurse=False) if p.ndim == 2]


def unstacked(matrix: nn.Parameter, module: nn.Module) -> list[nn.Parameter]:
    """Views of the rows of a stacked matrix: Muon needs query, key, value, gate and up as separate matrices."""
    rows = list(module.parts.values()) if isinstance(module, Stacked) else [len(matrix)]
    return [nn.Parameter(part) for part in matrix.data.split(rows)]


def initialise(model: Llama) -> None:
    """Normal(0, 0.02). Projections back into the stream start at zero: every layer starts as the identity."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(parameter)
        elif parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.02)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the storyteller on a folder of *.txt, one paragraph per line.")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=75.0, help="of training, without evaluation")
    parser.add_argument("--save-every", type=float, default=5.0, metavar="MINUTES")
    parser.add_argument("--lr", type=float, default=4e-3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
