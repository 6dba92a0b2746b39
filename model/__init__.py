"""A minimal Llama-2 that feeds the samplers: `Llama`, `Tokenizer`, `generate`.

Names are imported when first used, so that the command line answers `--help` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.config import LlamaConfig
    from model.generation import Generation, generate
    from model.llama import Llama
    from model.tokenizer import Tokenizer

_HOMES = {
    "Generation": "model.generation",
    "Llama": "model.llama",
    "LlamaConfig": "model.config",
    "Tokenizer": "model.tokenizer",
    "generate": "model.generation",
}
__all__ = ["Generation", "Llama", "LlamaConfig", "Tokenizer", "generate"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
