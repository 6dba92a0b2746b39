"""Chat formats, and the format that a folder's model expects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.untrusted import optional_json


@dataclass(frozen=True)
class ChatTemplate:
    """The text around each message of a chat.

    A turn is opening + (system + user + input).strip() + closing, and its answer before_answer + answer + after_answer.
    The system message is part of the first turn only; `{}` is the message's place.

    input: around the second part of a user's message, None if the format has none. default_system: two texts that
    replace a missing system message, without and with an input in the first turn. is_bos_every_turn: BOS begins every
    turn, else only the chat. is_eos_every_answer: EOS ends every answer. stop_strings: these also end an answer.
    """

    opening: str = ""
    system: str = "{}\n"
    user: str = "{}"
    input: str | None = None
    closing: str = "\n"
    before_answer: str = ""
    after_answer: str = ""
    default_system: tuple[str, str] | None = None
    is_bos_every_turn: bool = False
    is_eos_every_answer: bool = True
    stop_strings: tuple[str, ...] = ()


TEMPLATES = {
    # Touvron et al. 2023, Llama 2: section 3.3 and the code released with it. Each turn is a sequence of its own.
    "llama-2": ChatTemplate(
        opening="[INST] ",
        system="<<SYS>>\n{}\n<</SYS>>\n\n",
        closing=" [/INST]",
        before_answer=" ",
        after_answer=" ",
        is_bos_every_turn=True,
    ),
    # Taori et al. 2023, Stanford Alpaca. Designed for one turn; further turns follow each other.
    "alpaca": ChatTemplate(
        system="{}\n\n",
        user="### Instruction:\n{}",
        input="\n\n### Input:\n{}",
        closing="\n\n### Response:",
        default_system=(
            "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
            "Below is an instruction that describes a task, paired with an input that provides further context. "
            "Write a response that appropriately completes the request.",
        ),
        stop_strings=("### Instruction:",),
    ),
    # No marks, for a model without instruction tuning: each message is a paragraph.
    "plain": ChatTemplate(after_answer="\n", is_eos_every_answer=False, stop_strings=("\n",)),
}


def template_of(name: str) -> ChatTemplate:
    """The format of this name. Raises: ValueError for an unknown one."""
    if name not in TEMPLATES:
        raise ValueError(f"template must be one of {', '.join(TEMPLATES)}, got {name!r}")
    return TEMPLATES[name]


def default_template(folder: str | Path | None) -> str:
    """The name of the format that a folder's model expects: Llama-2's; without a folder, the storyteller's: plain.

    Raises: ValueError if the folder has its own chat template and it is not Llama-2's: it lacks [INST].

    >>> default_template(None)
    'plain'
    """
    if folder is None:
        return "plain"
    own = own_template(Path(folder))
    if own is not None and "[INST]" not in own:
        raise ValueError(
            f"{folder}: its chat template is not Llama-2's, as it lacks [INST]; "
            f"--template must say which to use: {', '.join(TEMPLATES)}"
        )
    return "llama-2"


def own_template(folder: Path) -> str | None:
    """The Jinja text of a folder's chat template, None if it has none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")  # searched, never run
    own = optional_json(folder / "tokenizer_config.json").get("chat_template")
    return own if own is None or isinstance(own, str) else str(own)  # a list: several, by name


def has_space_after_special(folder: str | Path | None) -> bool:
    """Whether a folder's tokenizer puts a space piece after every special token, as Llama 2's does.

    transformers calls this `legacy`. The rules of tokenizer.json decide, or without it `legacy` in
    tokenizer_config.json. They disagree in Llama 2's own folders: their tokenizer.json has the space, as in training,
    and their `legacy` is false, which transformers 5 obeys and transformers 4 did not.

    >>> has_space_after_special(None)
    True
    """
    if folder is None:
        return True
    rules = optional_json(Path(folder) / "tokenizer.json")
    for step in steps(rules.get("normalizer"), "normalizers") + steps(rules.get("pre_tokenizer"), "pretokenizers"):
        if step.get("type") == "Prepend":
            return True
        if step.get("type") == "Metaspace":
            return step.get("prepend_scheme", "always") == "always"
    return optional_json(Path(folder) / "tokenizer_config.json").get("legacy") is not False


def steps(rule: Any, parts: str) -> list[Mapping[str, Any]]:
    """A rule of tokenizer.json as the list of its parts."""
    if not isinstance(rule, Mapping):
        return []
    if rule.get("type") != "Sequence":
        return [rule]
    inner = rule.get(parts)
    return [step for part in inner for step in steps(part, parts)] if isinstance(inner, list) else []
