"""A minimal Llama-2 that feeds the samplers: `Llama`, `Tokenizer`, `generate`.

Names are imported when first used: the command line answers `--help` without loading torch.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would be an import before `model.cli` can end a Ctrl-C
if TYPE_CHECKING:
    from typing import Any

    from model.chat.conversation import Conversation, encode_chat
    from model.chat.session import ChatSession
    from model.config import LlamaConfig
    from model.decoding.batches import generate_many
    from model.decoding.generation import generate
    from model.decoding.writer import Generation
    from model.llama import Llama
    from model.tokenizer import Tokenizer

_HOMES = {
    "ChatSession": "model.chat.session",
    "Conversation": "model.chat.conversation",
    "Generation": "model.decoding.writer",
    "Llama": "model.llama",
    "LlamaConfig": "model.config",
    "Tokenizer": "model.tokenizer",
    "encode_chat": "model.chat.conversation",
    "generate": "model.decoding.generation",
    "generate_many": "model.decoding.batches",
}
__all__ = [
    "ChatSession",
    "Conversation",
    "Generation",
    "Llama",
    "LlamaConfig",
    "Tokenizer",
    "encode_chat",
    "generate",
    "generate_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'model' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
