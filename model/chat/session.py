"""A conversation with a model that answers: what `alea chat` runs behind its screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from model.chat.conversation import Conversation, Prompt
from model.decoding.generation import generate, random_seed, sampling_params
from model.llama import Llama
from model.study.decoding_trace import DecodingTrace, trace_decoding
from model.tokenizer import Tokenizer
from samplers import SamplingParams


@dataclass
class Answer:
    """How an answer was drawn: enough to draw it again.

    ids: the tokens drawn. finish_reason: "eos", "stop", "length", or "interrupted" by Ctrl-C.
    A streamer for `generate`, so that the ids are there when it is interrupted.
    """

    prompt: list[int]
    params: SamplingParams
    stream: int
    text: str = ""
    ids: list[int] = field(default_factory=list)
    finish_reason: str = "interrupted"
    has_prompt: bool = field(default=False, repr=False)

    def put(self, ids: Tensor) -> None:
        """The prompt first, then token by token."""
        if self.has_prompt:
            self.ids += ids.tolist()
        self.has_prompt = True

    def end(self) -> None:
        pass


class ChatSession:
    """A model that answers the messages of a conversation, the i-th from 0 with the seed and stream i.

    Args:
        llama, tokenizer: the model.
        conversation: as far as it goes; it may be changed between answers.
        seed: None draws one from torch's generator.
        sampling: any field of `samplers.SamplingParams`, default the model's generation_config.

    Raises: ValueError or TypeError naming the parameter.

    >>> llama, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> conversation = Conversation(tokenizer, window=512, reserved=8, template="plain")
    >>> session = ChatSession(llama, tokenizer, conversation, seed=7, top_p=0.9)
    >>> answer = session.say("Once upon a time")
    >>> answer.text == conversation.messages[-1]["content"], session.trace().ids == answer.ids
    (True, True)
    """

    def __init__(
        self, llama: Llama, tokenizer: Tokenizer, conversation: Conversation, seed: int | None = None, **sampling: Any
    ) -> None:
        self.llama, self.tokenizer, self.conversation = llama, tokenizer, conversation
        self.seed = random_seed() if seed is None else seed
        self.answers: list[Answer] = []
        self.set_sampling(sampling)

    def set_sampling(self, sampling: Mapping[str, Any]) -> None:
        """For the answers to come; the model's own where nothing is given. Where one is refused, none is set."""
        defaults = self.llama.generation_config
        do_sample = None if defaults.get("do_sample") is False else True
        self.params = sampling_params(defaults, do_sample, dict(sampling))
        self.sampling, self.do_sample = dict(sampling), do_sample

    def say(self, text: str, on_text: Callable[[str], None] | None = None) -> Answer:
        """Answer a message of the user's, added to the conversation; as `Conversation.ask` and `reply` in one."""
        return self.reply(self.conversation.ask(text), on_text)

    def reply(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Answer:
        """Answer the conversation's last message, with the prompt that `Conversation.ask` made of it.

        on_text: is shown the answer as it grows, the trigger first, no whitespace at its ends. Ctrl-C ends it there:
        what was said stays in the conversation. Where nothing was, and on an error, the message is taken back.
        """
        answer = Answer(prompt.ids, self.params, stream=len(self.answers))
        self.answers.append(answer)
        trimmed, said = Trimmed(), []

        def show(_: int, text: str) -> None:
            said.append(text)
            shown = trimmed.put(text)
            if shown and on_text is not None:
                on_text(shown)

        try:
            show(0, self.conversation.trigger)
            ((generation,),) = generate(
                self.llama,
                self.tokenizer,
                [prompt.ids],
                max_new_tokens=self.conversation.reserved,
                do_sample=self.do_sample,
                stop_strings=self.conversation.stop_strings,
                seed=self.seed,
                stream=[answer.stream],
                streamer=answer,
                on_text=show,
                model_logprobs=False,
                **self.sampling,
            )
            answer.finish_reason = generation.finish_reason
        except KeyboardInterrupt:
            if len(said) < 2:  # the trigger alone
                self.conversation.take_back()
                return answer
        except BaseException:
            self.conversation.take_back()
            raise
        answer.text = self.conversation.answer("".join(said[1:]))
        return answer

    def trace(self) -> DecodingTrace:
        """The last answer followed, draw by draw. Raises: ValueError where there is none."""
        if not self.answers or not self.answers[-1].ids:
            raise ValueError("a trace needs an answer to follow, got none yet")
        answer = self.answers[-1]
        return trace_decoding(
            self.llama,
            self.tokenizer,
            answer.prompt,
            answer.params,
            seed=self.seed,
            stream=answer.stream,
            max_new_tokens=len(answer.ids),
            top=1,
        )


class Trimmed:
    """Passes text on as it comes, without the whitespace at its beginning and its end.

    >>> trimmed = Trimmed()
    >>> [trimmed.put(text) for text in ("", " ", " So", " it ", "\\n", "ends.", "\\n")]
    ['', '', 'So', ' it', '', ' \\nends.', '']
    """

    def __init__(self) -> None:
        self.held = ""
        self.has_begun = False

    def put(self, text: str) -> str:
        """What may be shown now: whitespace waits until something follows it."""
        text = self.held + text if self.has_begun else text.lstrip()
        shown = text.rstrip()
        self.held = text[len(shown) :]
        self.has_begun = self.has_begun or bool(shown)
        return shown
