"""How a chat is written as text: one row a format, and which of them a folder's model was made for."""

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
    The system message stands in the first turn alone; `{}` is the message's place.

    input: around the second part of a user's message, None where the format has none. default_system: the two texts
    that stand for a missing system message, without and with an input in the first turn. is_bos_every_turn: BOS begins
    every turn, else the chat alone. is_eos_every_answer: EOS ends every answer. stop_strings: end an answer as well.
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
    # Taori et al. 2023, Stanford Alpaca. One turn is what it was made for; more stand one behind the other.
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
    # No marks, for a model that knows no instructions: what was said, a paragraph each; an answer is one as well.
    "plain": ChatTemplate(after_answer="\n", is_eos_every_answer=False, stop_strings=("\n",)),
}


def template_of(name: str) -> ChatTemplate:
    """A row by its name; ValueError for an unknown one."""
    if name not in TEMPLATES:
        raise ValueError(f"template must be one of {', '.join(TEMPLATES)}, got {name!r}")
    return TEMPLATES[name]


def default_template(folder: str | Path | None) -> str:
    """The name of the format that a folder's model expects: Llama-2's; no folder, the storyteller: plain.

    Raises: ValueError where the folder has a chat template of its own that is not Llama-2's, as it lacks [INST].

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
    """The Jinja text of a folder's chat template, None where it has none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8", errors="replace")  # it is looked at, never run
    own = optional_json(folder / "tokenizer_config.json").get("chat_template")
    return own if own is None or isinstance(own, str) else str(own)  # a list: several, by name


def has_space_after_special(folder: str | Path | None) -> bool:
    """Whether a folder's tokenizer puts a space piece after every special token, as Llama 2's does.

    transformers calls that `legacy`. Where there is a tokenizer.json, its rules tell, else `legacy` in
    tokenizer_config.json. The two disagree in folders of Llama 2 itself: their tokenizer.json has the space, which is
    what the model was trained with, and their `legacy` is false, which transformers 5 obeys and transformers 4 did not.

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
    """A rule of tokenizer.json as the list of those that it is made of."""
    if not isinstance(rule, Mapping):
        return []
    if rule.get("type") != "Sequence":
        return [rule]
    several = rule.get(parts)
    return [one for part in several for one in steps(part, parts)] if isinstance(several, list) else []
