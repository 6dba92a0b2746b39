"""POST /v1/chat/completions: messages and the answer to the last."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from model.chat.conversation import encode_chat
from model.chat.session import Trimmed
from model.chat.templates import template_of
from model.serve.api import logprobs as formats
from model.serve.api.body import Body, WithoutEffect, only
from model.serve.api.errors import Refusal
from model.serve.api.fields import Alternatives, OpenAIFields
from model.serve.api.reader import Piece
from model.serve.api.reply import DONE, Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Request

NO_TOOLS = "tools are not served"
ROLES = {"developer": "system"}


class TextPart(Body):
    type: Literal["text"]
    text: str


class Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(fail_fast=True)]
    name: WithoutEffect = None
    refusal: only(why="a refusal is not served") = None  # type: ignore[valid-type]
    tool_calls: only([], why=NO_TOOLS) = None  # type: ignore[valid-type]
    function_call: only(why=NO_TOOLS) = None  # type: ignore[valid-type]
    audio: only(why="only text is served") = None  # type: ignore[valid-type]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(OpenAIFields):
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    modalities: only(["text"], why="only text is served") = None  # type: ignore[valid-type]
    audio: only(why="only text is served") = None  # type: ignore[valid-type]
    tools: only([], why=NO_TOOLS) = None  # type: ignore[valid-type]
    tool_choice: only("none", "auto", why=NO_TOOLS) = None  # type: ignore[valid-type]
    functions: only([], why=NO_TOOLS) = None  # type: ignore[valid-type]
    function_call: only("none", "auto", why=NO_TOOLS) = None  # type: ignore[valid-type]
    parallel_tool_calls: WithoutEffect = None
    prediction: WithoutEffect = None
    reasoning_effort: only("none", why="the model does not reason before it answers") = None  # type: ignore[valid-type]
    verbosity: only("medium", why="the model knows no verbosity") = None  # type: ignore[valid-type]
    web_search_options: only(why="the server searches nothing") = None  # type: ignore[valid-type]
    moderation: only(why="the server does not moderate") = None  # type: ignore[valid-type]

    def request(self, service: Service, key: str = "") -> Request:
        self.check(service)
        if self.top_logprobs is not None and not self.logprobs:
            raise Refusal(400, "top_logprobs must be null unless logprobs is true", "top_logprobs")
        if self.stream and self.prompt_logprobs is not None:
            raise Refusal(400, "prompt_logprobs must be null where stream is true", "prompt_logprobs")
        if not service.template:
            raise Refusal(
                400, "messages: the model's chat template is unknown; start alea serve with --template", "messages"
            )
        if self.add_special_tokens:
            raise Refusal(400, "add_special_tokens must not be true: the chat template has them", "add_special_tokens")
        messages = [{"role": ROLES.get(one.role, one.role), "content": one.text} for one in self.messages]
        prompt = encode_chat(
            service.tokenizer, messages, service.template, space_after_special=service.space_after_special
        )
        name = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"  # as OpenAI's
        new = service.new_tokens("messages", [prompt], name, getattr(self, name), None)
        settings = self.settings(
            service,
            new,
            template_stop=template_of(service.template).stop_strings,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            prompt_logprobs=self.prompt_logprobs,
        )
        return service.request([prompt], self.n or 1, settings, self.stream_of(0), key, bool(self.stream))

    def reply(self, service: Service, request: Request) -> ChatReply:
        return ChatReply(service, request, self)


class ChatReply(Reply):
    """Answers have no whitespace at their ends, as in `alea chat`."""

    def __init__(self, service: Service, request: Request, body: ChatBody) -> None:
        self.body, self.by_token = body, bool(body.logprobs)
        super().__init__(service, request)
        self.names = formats.Names(service.tokenizer, bool(body.return_tokens_as_token_ids))
        self.trimmed = [Trimmed() for _ in request.choices]
        self.head = self.head_of("chatcmpl", "chat.completion.chunk" if body.stream else "chat.completion")

    def whole(self) -> Object:
        pieces = [reader.take() for reader in self.readers]
        choices = [self.choice(i, piece) for i, piece in enumerate(pieces) if piece is not None]
        found: Object = {**self.head, "choices": choices, "usage": self.usage()}
        if self.body.prompt_logprobs is not None:
            found["prompt_logprobs"] = formats.of_prompt(
                self.names, self.request.choices[0].prompt_logprobs, self.body.prompt_logprobs
            )
        return found

    def choice(self, index: int, piece: Piece) -> Object:
        return {
            "index": index,
            "message": {"role": "assistant", "content": piece.text.strip(), "refusal": None},
            "logprobs": formats.of_chat(self.names, piece.logprobs) if self.by_token else None,
            "finish_reason": piece.finish_reason,
        }

    def begin(self) -> Iterable[str]:
        for i in range(len(self.readers)):
            yield self.chunk(i, {"role": "assistant", "content": ""})

    def news(self) -> Iterable[str]:
        for i, reader in enumerate(self.readers):
            piece = reader.take()
            if piece is None:
                continue
            text = self.trimmed[i].put(piece.text)
            logprobs = formats.of_chat(self.names, piece.logprobs) if self.by_token else None
            yield self.chunk(i, {"content": text} if text else {}, logprobs, piece.finish_reason)

    def chunk(self, index: int, delta: Object, logprobs: Any = None, finish_reason: str | None = None) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self.event({"choices": [choice]})

    def end(self) -> Iterable[str]:
        if self.body.includes_usage:
            yield self.event({"choices": [], "usage": self.usage()})
        yield DONE
