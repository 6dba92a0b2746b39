"""A chat as a model reads it: messages with roles as token ids, within the model's window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from model.chat.templates import ChatTemplate, template_of
from model.tokenizer import Tokenizer
from samplers.params import integer

Message = Mapping[str, Any]
ROLES = ("system", "user", "assistant")


class Turn(NamedTuple):
    """The user's message (input: its second part, in formats that have one) and the answer, None in the last turn."""

    user: str
    input: str | None
    answer: str | None


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    template: str = "llama-2",
    trigger: str = "",
    space_after_special: bool = True,
) -> list[int]:
    """Token ids of a chat, ready for the answer to its last message.

    Special tokens come from the template alone: a `</s>` or `[INST]` in a message stays text.

    Args:
        messages: {"role": "system", "user" or "assistant", "content": str}, as in transformers: an optional system
            message, then user and assistant in turn, the user last. Earlier turns may be examples. A user's message
            may have an "input", if the template has a place for it (alpaca).
        template: a name in `model.chat.templates.TEMPLATES`.
        trigger: the beginning of the answer, such as "A:" or "Let's think step by step:".
        space_after_special: whether text after a special token begins with a space piece, as in Meta's own code and
            transformers' `legacy=True`; `model.chat.templates.has_space_after_special` finds it for a folder.

    Raises: ValueError or TypeError naming messages[i], if roles are unknown or out of order or content is no str.
    Source: Touvron et al. 2023, Llama 2, section 3.3, and the code released with it.

    >>> tokenizer = Tokenizer.from_pretrained()
    >>> tokenizer.decode(encode_chat(tokenizer, [{"role": "user", "content": " Who goes there? "}], trigger="A:"))
    '[INST] Who goes there? [/INST] A:'
    """
    row = template_of(template)
    system, turns = checked(messages, template)
    if system is None:
        system = default_system(row, turns)
    return encode_turns(tokenizer, row, system, turns, checked_text("trigger", trigger), space_after_special)


def default_system(row: ChatTemplate, turns: Sequence[Turn]) -> str | None:
    return None if row.default_system is None else row.default_system[turns[0].input is not None]


def encode_turns(
    tokenizer: Tokenizer,
    row: ChatTemplate,
    system: str | None,
    turns: Sequence[Turn],
    trigger: str,
    space_after_special: bool,
) -> list[int]:
    """`encode_chat` with checked arguments; without a system message, the template's default is not used."""
    ids: list[int] = []
    for part in joined(written(row, system, turns, trigger, tokenizer.bos_id, tokenizer.eos_id)):
        if isinstance(part, int):
            ids.append(part)
        elif space_after_special or (len(ids) == 1 and not row.is_bos_every_turn):
            ids += tokenizer.encode(part, bos=False)
        else:
            ids += encode_without_space(tokenizer, part)
    return ids


def written(
    row: ChatTemplate, system: str | None, turns: Sequence[Turn], trigger: str, bos: int, eos: int
) -> list[str | int]:
    """Texts, and ids of special tokens between them."""
    parts: list[str | int] = []
    for number, turn in enumerate(turns):
        if number == 0 or row.is_bos_every_turn:
            parts.append(bos)
        text = row.system.format(system) if number == 0 and system is not None else ""
        text += row.user.format(turn.user)
        if row.input is not None and turn.input is not None:
            text += row.input.format(turn.input)
        parts.append(row.opening + text.strip() + row.closing)
        if turn.answer is not None:
            parts.append(row.before_answer + turn.answer.strip() + row.after_answer)
            parts += [eos] * row.is_eos_every_answer
    return [*parts, row.before_answer + trigger.strip()] if trigger.strip() else parts


def joined(parts: Sequence[str | int]) -> list[str | int]:
    """Joins adjacent texts, because a token may span them.

    >>> joined([1, "a", "b", 2, 1, "c"])
    [1, 'ab', 2, 1, 'c']
    """
    whole: list[str | int] = []
    for part in parts:
        if isinstance(part, str) and whole and isinstance(whole[-1], str):
            whole[-1] += part
        else:
            whole.append(part)
    return whole


def encode_without_space(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a text without the space piece that SentencePiece puts before a text.

    SentencePiece has no option for it: the text is encoded after a line break, which is a separate piece.
    """
    line_break = tokenizer.encode("\n", bos=False)
    ids = tokenizer.encode("\n" + text, bos=False)
    if ids[: len(line_break)] != line_break:
        raise ValueError("space_after_special must be True for this tokenizer: its pieces hold line breaks; got False")
    return ids[len(line_break) :]


def checked(messages: Sequence[Message], template: str) -> tuple[str | None, list[Turn]]:
    """The system message and the turns."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of {{'role': ..., 'content': ...}}, got {messages!r}")
    if not messages:
        raise ValueError("messages must hold at least the user's message, got none")
    for i, message in enumerate(messages):
        check_message(f"messages[{i}]", message, template)
    has_system = messages[0]["role"] == "system"
    for i, message in enumerate(messages[has_system:], has_system):
        wanted = ROLES[1 + (i - has_system) % 2]
        if message["role"] != wanted:
            order = "at most one system message, first; then user and assistant in turn"
            raise ValueError(f"messages[{i}] must have role {wanted!r} ({order}), got {message['role']!r}")
    if messages[-1]["role"] != "user":
        last = len(messages) - 1
        raise ValueError(f"messages[{last}], the last, must have role 'user', got {messages[last]['role']!r}")
    users = messages[has_system::2]
    answers = [message["content"] for message in messages[has_system + 1 :: 2]] + [None]
    turns = [Turn(user["content"], user.get("input"), answer) for user, answer in zip(users, answers, strict=True)]
    return messages[0]["content"] if has_system else None, turns


def check_message(name: str, message: Message, template: str) -> None:
    if not isinstance(message, Mapping):
        raise TypeError(f"{name} must be {{'role': ..., 'content': ...}}, got {message!r}")
    for key in ("role", "content"):
        if key not in message:
            raise ValueError(f"{name} must have a {key}, got {dict(message)!r}")
    if message["role"] not in ROLES:
        raise ValueError(f"{name} must have role {', '.join(ROLES[:2])} or {ROLES[2]}, got {message['role']!r}")
    checked_text(f"{name}: content", message["content"])
    if message.get("input") is not None:
        if message["role"] != "user":
            raise ValueError(f"{name} must have no input: only a user's message may, got role {message['role']!r}")
        if template_of(template).input is None:
            raise ValueError(f"{name} must have no input: the template {template} has no place for it")
        checked_text(f"{name}: input", message["input"])


def checked_text(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, got {text!r} of type {type(text).__name__}")
    return text


@dataclass(frozen=True)
class Budget:
    """How a model's window is divided, in tokens; `left` remains for the prompt, the user's next message.

    reserved: for the answer. history: of earlier turns.

    >>> budget = Budget(window=4096, reserved=512, system=124, trigger=11, history=390)
    >>> budget.left
    3059
    >>> print(budget)
    4096 window - 512 answer - 124 system - 11 trigger - 390 history = 3059 left for the prompt
    """

    window: int
    reserved: int
    system: int
    trigger: int
    history: int

    @property
    def left(self) -> int:
        return self.window - self.reserved - self.system - self.trigger - self.history

    def __str__(self) -> str:
        return (
            f"{self.window} window - {self.reserved} answer - {self.system} system - {self.trigger} trigger "
            f"- {self.history} history = {self.left} left for the prompt"
        )


class Prompt(NamedTuple):
    """The ids that `generate` continues; dropped: the number of oldest turns that did not fit."""

    ids: list[int]
    dropped: int


class Conversation:
    """The messages of a growing chat; each prompt fits the model's window.

    Args:
        tokenizer: of the model that answers.
        window: int, its max_position_embeddings, tokens.
        reserved: int in 1 .. window - 1, tokens for an answer.
        template, trigger, space_after_special: as in `encode_chat`.
        system: the system message, "" for none; it may be changed at any time.
        history: first messages, user and assistant in turn, such as examples.
        drop_oldest: whether the oldest turns (never the system message) are dropped if a prompt does not fit.

    Raises: ValueError or TypeError naming the argument.

    >>> chat = Conversation(Tokenizer.from_pretrained(), window=512, reserved=100, template="plain")
    >>> prompt = chat.ask("Who are you?")
    >>> chat.answer(" A tiger. ")
    'A tiger.'
    >>> chat.tokenizer.decode(chat.ask("And who am I?").ids)
    'Who are you?\\nA tiger.\\nAnd who am I?\\n'
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        window: int,
        reserved: int,
        template: str = "llama-2",
        system: str = "",
        trigger: str = "",
        history: Sequence[Message] = (),
        drop_oldest: bool = False,
        space_after_special: bool = True,
    ) -> None:
        self.window, self.reserved = integer("window", window, 2), integer("reserved", reserved, 1)
        if reserved >= window:
            raise ValueError(f"reserved must be in 1 .. {window - 1}, the window less a token, got {reserved}")
        self.tokenizer, self.template, self.stop_strings = tokenizer, template, template_of(template).stop_strings
        self.system, self.trigger = checked_text("system", system), checked_text("trigger", trigger).strip()
        self.drop_oldest, self.space_after_special = drop_oldest, space_after_special
        self.said: list[Message] = list(history)
        if history:
            checked([*history, {"role": "user", "content": ""}], template)

    @property
    def messages(self) -> list[Message]:
        """All messages, the system message first."""
        return self.first + self.said

    @property
    def first(self) -> list[Message]:
        system = self.system.strip()
        return [{"role": "system", "content": system}] if system else []

    def ask(self, text: str, **parts: str) -> Prompt:
        """Add the user's message; returns the prompt for its answer.

        parts: input="...", if the template has a place for it.
        Raises: ValueError with the arithmetic if the prompt does not fit, and if the last message has no answer yet;
            then nothing is changed.
        """
        if self.is_waiting:
            raise ValueError("the last message must be answered or taken back before the next, got another")
        said = [*self.said, {"role": "user", "content": checked_text("text", text).strip(), **parts}]
        size, budget, dropped = *self.sizes(said), 0
        while size > budget.left and self.drop_oldest and len(said) > 1:
            said, dropped = said[2:], dropped + 1
            size, budget = self.sizes(said)
        if size > budget.left:
            raise ValueError(f"the prompt must fit, got {size} tokens: {budget}; shorten it, or let old turns go")
        self.said = said
        return Prompt(self.encode(), dropped)

    @property
    def is_waiting(self) -> bool:
        """Whether the last message is the user's."""
        return bool(self.said) and self.said[-1]["role"] == "user"

    def answer(self, text: str) -> str:
        """Add the model's text after the prompt; returns the message, which begins with the trigger."""
        if not self.is_waiting:
            raise ValueError("a message must be asked before it is answered, got an answer alone")
        content = (self.trigger + checked_text("text", text)).strip()
        self.said.append({"role": "assistant", "content": content})
        return content

    def take_back(self) -> None:
        """Remove a message without an answer."""
        if self.is_waiting:
            self.said.pop()

    def reset(self) -> None:
        """Remove all messages except the system message."""
        self.said = []

    def budget(self) -> Budget:
        """The budget of the next prompt, which includes its template's marks. Tokens that span parts may add one."""
        return self.sizes([*self.said, {"role": "user", "content": "."}])[1]

    def sizes(self, said: Sequence[Message]) -> tuple[int, Budget]:
        """Tokens of the prompt, which is the last message, and the budget; each part counts the tokens that it adds."""
        row = template_of(self.template)
        system, turns = checked([*self.first, *said], self.template)
        system = default_system(row, turns) if system is None else system

        def size(system: str | None, turns: Sequence[Turn], trigger: str) -> int:
            return len(encode_turns(self.tokenizer, row, system, turns, trigger, self.space_after_special))

        whole, alone = size(system, turns, self.trigger), size(system, turns[-1:], self.trigger)
        bare, mute = size(None, turns[-1:], self.trigger), size(None, turns[-1:], "")
        return mute, Budget(self.window, self.reserved, alone - bare, bare - mute, whole - alone)

    def encode(self) -> list[int]:
        """The ids of all messages and the trigger."""
        return encode_chat(self.tokenizer, self.messages, self.template, self.trigger, self.space_after_special)
