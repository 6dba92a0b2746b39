"""One short name for everything that an answer depends on besides the request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model.llama import Llama
from samplers import DEFINITION

PATTERNS = ("config.json", "generation_config.json", "tokenizer.model", "*.safetensors", "adapter_config.json")


def fingerprint(llama: Llama, folders: Mapping[str, Path | None], settings: Mapping[str, Any]) -> str:
    """A hash of weights, tokenizer and configuration, of an adapter, of the settings and of the definition.

    folders: with the files, by their role. settings: such as dtype and quantization. Where torch computes the model,
    its version counts as well, since another may give other logits.

    >>> from model.config import BUILT_IN
    >>> fingerprint(Llama.from_pretrained(), {"model": BUILT_IN}, {}).startswith("alea-2-")
    True
    """
    parts: dict[str, Any] = {"definition": DEFINITION, **settings}
    if llama.why_not_exact:
        parts |= {"torch": torch.__version__, "why_not_exact": llama.why_not_exact}
    for role, folder in folders.items():
        if folder is not None:
            files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
            parts[role] = {path.name: digest(path) for path in files}
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"alea-{DEFINITION}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file)


def file_digest(file: Any) -> str:
    hashed = hashlib.sha256()
    while part := file.read(1 << 20):
        hashed.update(part)
    return hashed.hexdigest()
