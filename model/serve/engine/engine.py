"""Continuous batching (Yu et al. 2022, Orca): requests join and leave the batch at every step.

Nothing of the schedule enters an answer. The logits at a position depend on the tokens up to it alone, and a draw on
(seed, stream, position): so a request with a seed gets the same answer alone and in a full batch.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from model.block_cache import SLOTS
from model.decoding.logprobs import token_logprobs
from model.exact import Part
from model.llama import Llama
from model.serve.engine.drawing import Drawing
from model.serve.engine.fair_queue import FairQueue
from model.serve.engine.observer import Observer
from model.serve.engine.request import NO_ROW, Choice, Drawn, Failure, Request, TokenLogprob
from model.serve.engine.rows import rows_of
from samplers.grammar.background import look_ahead

MAX_BATCH = 32
CHUNK = 128  # prompt tokens in one step: nobody's next token waits for more
RECORDED = 16  # the same where their logprobs are asked for, which take longer than the model

TOO_SLOW = Failure(408, "timeout", "the request took longer than --request-timeout allows")
NO_NUMBERS = Failure(
    500, "invalid_logits", "the model gives NaN or +inf: its weights hold some, or its dtype is too narrow"
)


class Engine:
    """Generates for many requests at a time. Not for several threads at once: see `EngineThread`.

    Args:
        max_batch: int >= 1, choices that grow at a time.
        chunk: int >= 1, prompt tokens that one step reads at most.
        cache_tokens: positions that the key-value cache holds, None for as many as the batch may need.

    >>> from model import Tokenizer
    >>> from model.serve.engine.request import Settings
    >>> from samplers import SamplingParams
    >>> tokenizer, engine = Tokenizer.from_pretrained(), Engine(Llama.from_pretrained())
    >>> settings = Settings(SamplingParams(top_p=0.9), seed=7, max_new_tokens=4, vocabulary=4096)
    >>> choices = [Choice(i, tokenizer.encode("The king"), settings, stream=i, tokenizer=tokenizer) for i in range(2)]
    >>> engine.submit(Request(choices))
    >>> while engine.is_busy:
    ...     _ = engine.step()
    >>> len(choices[0].generation.ids), choices[0].generation.finish_reason
    (4, 'length')
    """

    def __init__(
        self,
        model: Llama,
        max_batch: int = MAX_BATCH,
        chunk: int = CHUNK,
        cache_tokens: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.model, self.chunk, self.observer = model, chunk, observer or Observer()
        self.rows = rows_of(model, max_batch, cache_tokens)
        self.free_rows = list(reversed(range(max_batch)))
        self.waiting, self.running = FairQueue(), list[Choice]()
        self.timed: list[Request] = []  # with a deadline
        self.drawing = Drawing([])

    @property
    def is_busy(self) -> bool:
        return bool(self.running or self.waiting)

    def submit(self, request: Request) -> None:
        for choice in request.choices:
            self.waiting.put(choice)
        if request.deadline < math.inf:
            self.timed.append(request)

    def fail(self, request: Request, failure: Failure) -> None:
        """End a request without an answer."""
        if request.is_over:
            return
        request.failure = failure
        for choice in request.choices:
            if choice.row != NO_ROW:
                self.leave(choice)
            elif not choice.is_done:
                self.waiting.remove(choice)
        self.observer.request_ended(request)

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """One pass of the model, and a draw for every choice whose text it has read. Returns: requests with news."""
        failed = self.fail_late()
        self.admit()
        parts = self.next_parts()
        if not parts:
            return failed
        masks = look_ahead(choice.matcher for choice in self.running)  # what grammars allow next
        hidden = self.rows.read([part for _, part in parts])  # [N, E]
        if len(hidden) == len(parts) == len(self.running) and not any(choice.is_reading for choice, _ in parts):
            choices = [choice for choice, _ in parts]  # one more token of every text, as at most steps
        else:
            choices, hidden = self.read_prompts(parts, hidden)
        for choice, part in parts:
            choice.read += len(part.ids)
        logits = self.model.logits(hidden) if choices else hidden
        masks.result()
        if choices:
            self.draw(choices, logits)
        return failed + self.news(choices)

    def read_prompts(self, parts: list[tuple[Choice, Part]], hidden: Tensor) -> tuple[list[Choice], Tensor]:
        """What there are draws for, where some choices are in their prompts or have forced tokens.

        Returns: the choice of each draw, and the stream before it [B, E].
        """
        drawn, places = list[Choice](), list[int]()
        end = read = 0
        for choice, part in parts:
            begin, end = end, end + len(part.ids)
            if choice.is_reading:
                read += len(part.ids)
                if choice.settings.prompt_logprobs is not None:
                    self.record_prompt(choice, part, hidden[begin:end])
                if part.start + len(part.ids) < len(choice.prompt):
                    continue
                self.rows.keep(choice.row, choice.prompt)  # other prompts may begin alike
                begin = end - 1
            drawn += [choice] * (end - begin)
            places += range(begin, end)
        self.observer.read_prompts(read)
        return drawn, hidden[places]

    def fail_late(self) -> list[Request]:
        """Requests past their deadline."""
        if not self.timed:
            return []
        now = time.monotonic()
        late = [request for request in self.timed if not request.is_over and request.deadline < now]
        for request in late:
            self.fail(request, TOO_SLOW)
        self.timed = [request for request in self.timed if not request.is_over]
        return late

    def admit(self) -> None:
        """Give waiting choices a row, in their order, as long as there is memory for their greatest length."""
        while self.waiting and self.free_rows:
            choice = self.waiting.first()
            if not self.rows.reserve(self.free_rows[-1], choice.most_positions):
                return
            self.waiting.take()
            choice.row = self.free_rows.pop()
            self.running.append(choice)

    def next_parts(self) -> list[tuple[Choice, Part]]:
        """The next tokens of each growing text, and prompts in the order of arrival, up to a chunk in all."""
        parts, left = list[tuple[Choice, Part]](), self.chunk
        prompts: list[list[int]] = []  # that are being read
        for choice in self.running:
            if not choice.is_reading:
                parts.append((choice, Part(choice.row, choice.next_ids, choice.read)))
            elif left and not (choice.read == 0 and is_in(choice.prompt, prompts)):
                if choice.read == 0:
                    self.begin(choice)
                prompts.append(choice.prompt)
                most = left if choice.settings.prompt_logprobs is None else min(left, RECORDED)
                ids = choice.prompt[choice.read : choice.read + most]
                left -= len(ids)
                parts.append((choice, Part(choice.row, ids, choice.read)))
        return parts

    def begin(self, choice: Choice) -> None:
        """Take over what is known of its prompt; its last token is read in any case, for its logits."""
        needs_all = choice.settings.prompt_logprobs is not None
        choice.read = self.rows.reuse(choice.row, [] if needs_all else choice.prompt[:-1])
        self.observer.began(choice, choice.read)

    def record_prompt(self, choice: Choice, part: Part, hidden: Tensor) -> None:
        """The logprob of each prompt token after the first, from the stream at the token before it [L, E]."""
        following = choice.prompt[part.start + 1 : part.start + 1 + len(hidden)]
        count = choice.settings.prompt_logprobs or 0
        for token, logits in zip(following, self.model.logits(hidden), strict=False):
            choice.prompt_logprobs.append(TokenLogprob(token, *token_logprobs(logits, token, count)))

    def draw(self, choices: list[Choice], logits: Tensor) -> None:
        """One token for each row of logits [B, V], unless only the prompt was to be read."""
        drawing = [i for i, choice in enumerate(choices) if self.can_draw(choice)]
        if len(drawing) < len(choices):
            choices, logits = [choices[i] for i in drawing], logits[drawing]
            if not choices:
                return
        if choices != self.drawing.choices:
            self.drawing = Drawing(choices)
        out = self.drawing.draw(logits)
        tokens, logprobs, grown = out.tokens.tolist(), out.logprobs.tolist(), list[Choice]()
        for row, (choice, token, logprob) in enumerate(zip(choices, tokens, logprobs, strict=True)):
            if choice.is_done:  # by a stop string, before the forced tokens that follow
                continue
            if token < 0:
                self.fail(choice.request, NO_NUMBERS)
                continue
            if choice.settings.logprobs is not None:
                found = token_logprobs(logits[row], token, choice.settings.logprobs)
                choice.logprobs.append(TokenLogprob(token, *found))
            if choice.settings.traced:
                row_logits = logits[row].to("cpu", torch.float32, copy=True).numpy()
                choice.draws.append(Drawn(row_logits, choice.mask(0)))
            choice.put(token, logprob)
            grown.append(choice)
        self.note_time(grown)

    def can_draw(self, choice: Choice) -> bool:
        """Ends a choice of which only the prompt was to be read, and fails one whose grammar can't go on."""
        if choice.matcher is not None and choice.matcher.problem:
            self.fail(choice.request, stuck(choice))
        elif choice.settings.max_new_tokens == 0:
            choice.generation.finish_reason = "length"
        else:
            return True
        return False

    def note_time(self, choices: list[Choice]) -> None:
        now = time.monotonic()
        self.observer.drew(choices, now)
        for choice in choices:
            choice.last_token_at = now

    def news(self, choices: list[Choice]) -> list[Request]:
        """Ends the choices that are done; returns the requests that their readers want to hear of."""
        news: dict[Request, None] = {}
        for choice in dict.fromkeys(choices):
            request = choice.request
            if choice.generation.finish_reason and request.failure is None:
                self.end(choice)
            if request.is_streamed or request.is_over:
                news[request] = None
        return list(news)

    def end(self, choice: Choice) -> None:
        """Its blocks may serve others."""
        self.rows.keep(choice.row, (choice.prompt + choice.generation.ids)[: choice.read])
        self.leave(choice)
        choice.request.left -= 1
        self.observer.ended(choice)
        if choice.request.is_over:
            self.observer.request_ended(choice.request)

    def leave(self, choice: Choice) -> None:
        self.running.remove(choice)
        self.rows.release(choice.row)
        self.free_rows.append(choice.row)
        choice.row = NO_ROW


def stuck(choice: Choice) -> Failure:
    assert choice.matcher is not None
    message = f"the grammar, after {len(choice.generation.ids)} tokens: {choice.matcher.problem}"
    return Failure(400, "grammar_stuck", message)


def is_in(prompt: list[int], prompts: list[list[int]]) -> bool:
    """Whether another choice of the same request reads this very prompt, whose blocks are known at the next step."""
    return len(prompt) > SLOTS and any(one is prompt for one in prompts)
