"""Oracle: the server's own OpenAPI document. schemathesis draws requests that fit it, and some that don't."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, Serve
from safetensors.numpy import save_file

HERE = Path(__file__).parent
STORYTELLER = ROOT / "model/storyteller"
WINDOW, WIDTH = 24, 32
TINY = dict(
    hidden_size=WIDTH,
    intermediate_size=WIDTH,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=WIDTH,
    max_position_embeddings=WINDOW,
)


@pytest.fixture(scope="module")
def tiny(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A server of a model that is fast: many requests ask for hundreds of texts, or for one as long as can be."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    config = json.loads((STORYTELLER / "config.json").read_text()) | TINY
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(STORYTELLER / "tokenizer.model", folder)
    save_file(random_weights(config["vocab_size"]), folder / "model.safetensors")
    return serve(str(folder), "--template", "plain", "--max-queue", "100000")


def random_weights(vocabulary: int) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (vocabulary, WIDTH), "norm": (WIDTH,)}
    for name in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"layers.0.{name}"] = (WIDTH,)
    for name in (*(f"self_attn.{x}_proj" for x in "qkvo"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down"))):
        shapes[f"layers.0.{name}"] = (WIDTH, WIDTH)
    random = np.random.default_rng(0)
    return {f"model.{name}.weight": random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def test_every_route_does_what_its_document_says(tiny: str, tmp_path: Path):
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"]
    done = subprocess.run(
        [*command, f"{tiny}/openapi.json"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
