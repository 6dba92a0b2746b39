"""A minimal Llama-2 that feeds the samplers: `Llama`, `Tokenizer`, `generate`.

Names are imported when first used, so that the command line answers `--help` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.config import LlamaConfig
    from model.generate import Generation, generate
    from model.llama import Llama
    from model.tokenizer import Tokenizer

_HOMES = {
    "Generation": "model.generate",
    "Llama": "model.llama",
    "LlamaConfig": "model.config",
    "Tokenizer": "model.tokenizer",
    "generate": "model.generate",
}
__all__ = ["Generation", "Llama", "LlamaConfig", "Tokenizer", "generate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # `generate` the function, not the module of that name
    return value
