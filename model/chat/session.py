"""A conversation with a model that answers: the core of `alea chat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from model.chat.conversation import Conversation, Prompt
from model.decoding.generation import generate_batch
from model.decoding.options import GenerationOptions, random_seed, sampling_params
from model.decoding.prompts import encode_prompts
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams


@dataclass
class Answer:
    """An answer, and all that is needed to draw it again.

    ids: the tokens drawn. finish_reason: "eos", "stop", "length", or "interrupted" by Ctrl-C.
    It is a streamer for `generate`: the ids are kept even if generation is interrupted.
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
    """A model that answers the messages of a conversation; answer i, from 0, is drawn with the seed and stream i.

    Args:
        llama, tokenizer: the model.
        conversation: the messages so far; it may be changed between answers.
        seed: None draws one from torch's generator.
        sampling: any field of `samplers.SamplingParams`, default the model's generation_config.

    Raises: ValueError or TypeError naming the parameter.

    >>> llama, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> conversation = Conversation(tokenizer, window=512, reserved=8, template="plain")
    >>> session = ChatSession(llama, tokenizer, conversation, seed=7, top_p=0.9)
    >>> answer = session.say("Once upon a time")
    >>> answer.text == conversation.messages[-1]["content"], len(answer.ids)
    (True, 8)
    """

    def __init__(
        self, llama: Llama, tokenizer: Tokenizer, conversation: Conversation, seed: int | None = None, **sampling: Any
    ) -> None:
        self.llama, self.tokenizer, self.conversation = llama, tokenizer, conversation
        self.seed = random_seed() if seed is None else seed
        self.answers: list[Answer] = []
        self.set_sampling(sampling)

    def set_sampling(self, sampling: Mapping[str, Any]) -> None:
        """For later answers; default the model's generation_config. If one parameter is refused, none is set."""
        defaults = self.llama.generation_config
        do_sample = None if defaults.get("do_sample") is False else True
        self.params = sampling_params(defaults, do_sample, dict(sampling))
        self.sampling = dict(sampling)

    def say(self, text: str, on_text: Callable[[str], None] | None = None) -> Answer:
        """Add a user's message to the conversation and answer it: `Conversation.ask` and `reply` in one."""
        return self.reply(self.conversation.ask(text), on_text)

    def reply(self, prompt: Prompt, on_text: Callable[[str], None] | None = None) -> Answer:
        """Answer the conversation's last message, with the prompt that `Conversation.ask` returned.

        on_text: called with the answer as it grows, the trigger first, without whitespace at its ends. After a Ctrl-C
        the part that was shown stays in the conversation; if there is none, and on an error, the message is taken back.
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
            prompt_ids = encode_prompts([prompt.ids], self.tokenizer, self.llama.config.vocab_size)
            options = self.options()
            ((generation,),) = generate_batch(
                self.llama, self.tokenizer, prompt_ids, options, [answer.stream], answer, show
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

    def options(self) -> GenerationOptions:
        return GenerationOptions(
            self.params,
            self.seed,
            self.llama.eos_token_ids,
            self.conversation.stop_strings,
            max_new_tokens=self.conversation.reserved,
            model_logprobs=False,
        )


class Trimmed:
    """Passes text on, without the whitespace at its beginning and its end.

    >>> trimmed = Trimmed()
    >>> [trimmed.put(text) for text in ("", " ", " So", " it ", "\\n", "ends.", "\\n")]
    ['', '', 'So', ' it', '', ' \\nends.', '']
    """

    def __init__(self) -> None:
        self.held = ""
        self.has_begun = False

    def put(self, text: str) -> str:
        """The text that may be shown now; whitespace waits until something follows it."""
        text = self.held + text if self.has_begun else text.lstrip()
        shown = text.rstrip()
        self.held = text[len(shown) :]
        self.has_begun = self.has_begun or bool(shown)
        return shown
