"""POST /v1/alea/trace: a text, and every stage of every draw of it.

The body is that of a completion or of a chat. The text comes from the same engine and is the same as there; each draw
is followed again, from the logits that the engine kept, by the reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Discriminator, Field, RootModel, Tag

from model.serve.api.body import only
from model.serve.api.chat import ChatBody
from model.serve.api.completions import CompletionBody
from model.serve.api.errors import Refusal
from model.serve.api.fields import Ids, OpenAIFields
from model.serve.api.reader import FINISH_REASONS
from model.serve.api.reply import DONE, Object, Reply
from model.serve.api.service import Service
from model.serve.engine.request import Drawn, Request, Settings
from model.study.decoding_trace import prompt_dicts, step_dict, trace_step
from model.study.trace_page import step_data
from samplers import Trace
from samplers.tracing import finite

MOST_BYTES = 64 << 20  # of the logits of one text
TOP = 20
ONE = "a trace is of one text"
STEPS_TELL = "the steps have the logprobs"


class TraceFields(OpenAIFields):
    """What a trace has besides the fields of a completion or a chat, and what of these it does not serve."""

    top: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description=f"candidates listed for each step; default {TOP}"
    )
    logits: bool | None = Field(default=None, description="adds to each step what a page needs to compute it again")
    n: only(1, why=f"n must be 1: {ONE}") = None  # type: ignore[valid-type]
    prompt_logprobs: only(why="prompt_tokens has the logprobs: prompt_logprobs must be null") = None  # type: ignore[valid-type]
    return_tokens_as_token_ids: only(False, why="every token comes with its id") = None  # type: ignore[valid-type]
    stream_options: only(why="the last event has the usage: stream_options must be null") = None  # type: ignore[valid-type]

    def settings(self, service: Service, max_new_tokens: int, do_sample: bool | None = None, **more: Any) -> Settings:
        check_memory(max_new_tokens, service.llama.config.vocab_size)
        return super().settings(service, max_new_tokens, do_sample, **{**more, "prompt_logprobs": 0, "traced": True})


def most_steps(vocabulary: int) -> int:
    """Whose logits a trace may keep."""
    return max(1, MOST_BYTES // (4 * vocabulary))


def check_memory(steps: int, vocabulary: int) -> None:
    """Raises: Refusal with the arithmetic where the logits of all steps take too much."""
    most = most_steps(vocabulary)
    if steps > most:
        raise Refusal(
            400,
            f"max_tokens: a trace keeps the logits of every step: {steps} x {vocabulary} x 4 bytes = "
            f"{4 * steps * vocabulary} > {MOST_BYTES}: ask for at most {most}",
            "max_tokens",
        )


class CompletionTraceBody(TraceFields, CompletionBody):
    prompt: str | Ids
    best_of: only(1, why=f"best_of must be 1: {ONE}") = None  # type: ignore[valid-type]
    echo: only(False, why="the trace has the prompt: echo must be false") = None  # type: ignore[valid-type]
    logprobs: only(why=f"{STEPS_TELL}: logprobs must be null") = None  # type: ignore[valid-type]


class ChatTraceBody(TraceFields, ChatBody):
    logprobs: only(False, why=f"{STEPS_TELL}: logprobs must be false") = None  # type: ignore[valid-type]
    top_logprobs: only(why=f"{STEPS_TELL}: top_logprobs must be null") = None  # type: ignore[valid-type]


def kind_of(body: Any) -> str:
    """Tags that are no names: errors are named after fields."""
    return "<chat>" if isinstance(body, dict) and "messages" in body else "<completion>"


class TraceBody(RootModel[Any]):
    """That of a chat where it has messages, else of a completion."""

    root: Annotated[
        Annotated[CompletionTraceBody, Tag("<completion>")] | Annotated[ChatTraceBody, Tag("<chat>")],
        Discriminator(kind_of),
    ]

    @property
    def stream(self) -> bool | None:
        return self.root.stream

    def request(self, service: Service, key: str = "") -> Request:
        return self.root.request(service, key)

    def reply(self, service: Service, request: Request) -> TraceReply:
        return TraceReply(service, request, self.root)


class TraceReply(Reply):
    """The fields of `alea trace --json`, at once; or the prompt, then each step as it is drawn, then the rest."""

    takes_long = True

    def __init__(self, service: Service, request: Request, body: TraceFields) -> None:
        super().__init__(service, request)
        self.body, (self.choice,) = body, request.choices
        self.head = self.head_of("trace", "alea.trace.chunk" if body.stream else "alea.trace")
        self.head["seed"] = self.choice.settings.seed
        self.steps: deque[Object] = deque()  # that are not told
        self.count = 0  # of all steps

    def work(self) -> bool:
        """Trace the next draw from what the engine kept of it, which is then dropped."""
        if not self.choice.draws:
            return False
        step = self.traced(self.choice.draws.popleft())
        more = {"page": finite(step_data(step))} if self.body.logits else {}
        self.steps.append({**step_dict(step, self.service.tokenizer), **more})
        self.count += 1
        return True

    def traced(self, drawn: Drawn) -> Trace:
        choice, settings = self.choice, self.choice.settings
        return trace_step(
            drawn.logits,
            settings.params,
            choice.prompt,
            choice.generation.ids[: self.count],
            seed=settings.seed,
            stream=choice.stream,
            top=self.body.top or TOP,
            allowed=drawn.mask,
        )

    def whole(self) -> Object:
        return {**self.head, **self.beginning(), "steps": list(self.steps), **self.ending()}

    def news(self) -> Iterable[str]:
        if self.count and self.count == len(self.steps):  # none is told
            yield self.event(self.beginning())
        while self.steps:
            yield self.event({"step": self.steps.popleft()})

    def end(self) -> Iterable[str]:
        yield self.event(self.ending())
        yield DONE

    def beginning(self) -> Object:
        choice, tokenizer = self.choice, self.service.tokenizer
        given = getattr(self.body, "prompt", None)
        logprobs = [None, *(one.logprob for one in choice.prompt_logprobs)]
        return {
            "prompt": given if isinstance(given, str) else tokenizer.decode(choice.prompt),
            "prompt_tokens": prompt_dicts(choice.prompt, logprobs, tokenizer),
        }

    def ending(self) -> Object:
        generation = self.choice.generation
        return {
            "text": self.service.tokenizer.decode(self.choice.prompt + generation.ids),
            "ended": generation.finish_reason == "eos",
            "finish_reason": FINISH_REASONS[generation.finish_reason],
            "usage": self.usage(),
        }
