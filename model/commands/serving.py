"""What `alea serve` and a file of requests have in common: the model as a service."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from model.chat.templates import default_template, has_space_after_special
from model.commands.arguments import model_folder, model_settings
from model.config import BUILT_IN
from model.llama import Llama
from model.serve.api.grammars import MAX_SECONDS
from model.serve.api.service import Service
from model.serve.engine.engine import Engine
from model.serve.fingerprint import fingerprint
from model.tokenizer import Tokenizer

SETTINGS = ("quantize", "double_quant", "dtype", "weights")  # of `model_settings`, those that change an answer


def service_of(arguments: argparse.Namespace, llama: Llama, tokenizer: Tokenizer, engine: Engine) -> Service:
    """Some arguments are `alea serve`'s alone; other commands take their defaults."""
    folder, given = model_folder(arguments), vars(arguments)
    chat: dict[str, Any] = {
        "template": given.get("template") or known_template(folder),
        "space_after_special": has_space_after_special(folder),
    }
    return Service(
        llama,
        tokenizer,
        tuple(given.get("name") or [default_name(folder)]),
        fingerprint_of(arguments, llama, chat),
        chat["template"],
        chat["space_after_special"],
        engine.rows.most_positions,
        given.get("request_timeout") or None,
        given.get("max_grammar_seconds") or MAX_SECONDS,
    )


def default_name(folder: str | None) -> str:
    return "storyteller" if folder is None else Path(folder).resolve().name


def known_template(folder: str | None) -> str:
    """The model's own chat format, "" where it is unknown: chats are refused then."""
    try:
        return default_template(folder)
    except ValueError:
        return ""


def fingerprint_of(arguments: argparse.Namespace, llama: Llama, chat: dict[str, Any]) -> str:
    settings = model_settings(arguments, llama)
    folders = {"model": Path(model_folder(arguments) or BUILT_IN)}
    if arguments.adapter is not None:
        folders["adapter"] = Path(arguments.adapter)
    return fingerprint(llama, folders, {**chat, **{name: settings[name] for name in SETTINGS}})
