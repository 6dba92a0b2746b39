"""Text from a model, one sampled token at a time, for a batch of prompts of any lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

import samplers
from model.config import token_ids
from model.decoding.beam_search import Beam, BeamRules, Chooser, Search, beam_search
from model.decoding.logprobs import CompletionLogprobs, Recorder
from model.decoding.stop_strings import StopStrings
from model.kv_cache import KVCache, Slots
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers import SamplingParams
from samplers.params import PENALTIES, integer

Prompt = str | Sequence[int]
SAMPLING = tuple(f.name for f in fields(SamplingParams))


@dataclass
class Generation:
    """One continuation of a prompt.

    text: without special tokens, ended before a stop string. ids: every token drawn, EOS included.
    logprobs: ln probability of each in the distribution it was drawn from; model_logprobs: under softmax of the
    model's logits, before penalties, temperature and filters (empty where they were not asked for).
    finish_reason: "eos", "stop" (a stop string) or "length".
    completion_logprobs: raw and final logprobs with the most probable alternatives, where `logprobs` asked for them.
    score: of beams, sum(logprobs) / len(ids) ** length_penalty, None without. There, logprobs are what each token added
    to the sum: ln p under the model, after penalties; with do_sample also over the temperature, not renormalised.
    """

    text: str = ""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    model_logprobs: list[float] = field(default_factory=list)
    finish_reason: str = ""
    completion_logprobs: CompletionLogprobs | None = None
    score: float | None = None


@torch.inference_mode()
def generate(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: str | Sequence[Prompt],
    *,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    do_sample: bool | None = None,
    num_return_sequences: int = 1,
    eos_token_id: int | Sequence[int] | None = None,
    stop_strings: str | Sequence[str] | None = None,
    seed: int | None = None,
    stream: Sequence[int] | None = None,
    streamer: Any = None,
    on_text: Callable[[int, str], None] | None = None,
    model_logprobs: bool = True,
    logprobs: int | None = None,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    backend: str = "auto",
    **sampling: Any,
) -> list[list[Generation]]:
    """Continue each prompt `num_return_sequences` times; one list a prompt, one Generation a continuation.

    Args:
        prompts: texts, or token ids ready made (then no BOS is added).
        max_new_tokens: tokens to draw at most; or max_length, prompt included. Neither: as many as the window holds.
        do_sample: False takes the most probable token. Default: the model's generation_config, else whether a
            sampling parameter is given.
        eos_token_id: ids that end a text, () for none; default the model's.
        stop_strings: strings that end a text; they are cut off, also where they span tokens.
        seed: None draws one from torch's generator, so that `torch.manual_seed` rules it.
        stream: one number a sequence, default 0, 1, 2 ... through the call. A sequence draws by its seed, stream and
            position alone: it keeps its text in any batch (as far as the model's own logits do not differ there).
            With beams, one number a prompt.
        streamer: an object with put(ids) and end(), as transformers' TextStreamer; for a single sequence.
        on_text: called with (sequence number, text) as text appears, never with half a character or stop string.
        model_logprobs: False leaves them out, which saves a pass over the logits.
        logprobs: int in 0 .. vocabulary: also `completion_logprobs`, with so many alternatives a step; None saves them.
        num_beams: int in 1 .. 1024; above 1, so many texts a prompt grow side by side, and the num_return_sequences of
            the best score return, the best first: beam search, or with do_sample (which the model's generation_config
            may say) and T above 0 beam sampling. Not together with streamer, on_text, logprobs.
        length_penalty, early_stopping: of beams, as `BeamRules` has them.
        backend: of the sampler.
        sampling: any field of `samplers.SamplingParams`, default the model's generation_config (of which do_sample and
            eos_token_id are heeded as well, beams and lengths are not).

    Raises: ValueError or TypeError naming the argument; ValueError with the arithmetic where a prompt and its
        continuation exceed the model's window.

    >>> model, tokenizer = Llama.from_pretrained(), Tokenizer.from_pretrained()
    >>> a, b = (generate(model, tokenizer, "The king", max_new_tokens=8, top_p=0.9, seed=7)[0][0] for _ in range(2))
    >>> a.ids == b.ids, len(a.ids)
    (True, 8)
    """
    prompt_ids = encoded(prompts, tokenizer, model.config.vocab_size)
    room = rooms(prompt_ids, max_new_tokens, max_length, model.config.max_position_embeddings)
    count = integer("num_return_sequences", num_return_sequences, 1)
    ends = ending_ids(model, eos_token_id)
    rules = BeamRules(num_beams, length_penalty, early_stopping, ends)
    if num_beams > 1:
        check_beams(count, rules, streamer=streamer, on_text=on_text, logprobs=logprobs)
    elif length_penalty != 1 or early_stopping is not False:
        given = f"length_penalty = {length_penalty!r} and early_stopping = {early_stopping!r}"
        raise ValueError(f"num_beams must be above 1 for length_penalty and early_stopping, got 1 with {given}")
    streams = checked_streams(stream, len(prompt_ids) * (1 if num_beams > 1 else count))
    if streamer is not None and len(streams) != 1:
        raise ValueError(f"streamer must be None for more than one sequence, got {len(streams)} sequences")
    stops = checked_stops(stop_strings)
    params = sampling_params(model.generation_config, do_sample, sampling)
    seed = random_seed() if seed is None else integer("seed", seed)
    if num_beams > 1:
        searches = [
            Search(ids, new, rules, number, stop_check(tokenizer, stops))
            for ids, new, number in zip(prompt_ids, room, streams, strict=True)
        ]
        chooser = Chooser(params, rules, model.config.vocab_size, seed, backend)
        return searched(model, tokenizer, searches, chooser, count, stops, model_logprobs)
    recorder = None if logprobs is None else Recorder(logprobs, model.config.vocab_size, params, backend)
    sampler = Sampler(params, seed, model_logprobs, backend, recorder)
    writers = [
        Writer(number, prompt_ids[number // count], room[number // count], streams[number], tokenizer, stops, on_text)
        for number in range(len(streams))
    ]
    if streamer is not None:
        streamer.put(torch.tensor(prompt_ids))
    decode(model, prompt_ids, writers, sampler, ends, streamer)
    if streamer is not None:
        streamer.end()
    results = [writer.generation for writer in writers]
    if recorder is not None:
        for number, one in enumerate(results):
            one.completion_logprobs = recorder.completion(number, one.ids, one.logprobs, one.text, tokenizer)
    return [results[i : i + count] for i in range(0, len(results), count)]


def decode(
    model: Llama,
    prompt_ids: list[list[int]],
    writers: list[Writer],
    sampler: Sampler,
    ends: Sequence[int],
    streamer: Any,
) -> None:
    """Prefill every prompt once, then draw and append until every writer is done."""
    length = max(len(writer.prompt) + writer.room for writer in writers)
    logits, cache = prefill(model, prompt_ids, length)
    copies = len(writers) // len(prompt_ids)
    if copies > 1:
        logits, cache = logits.repeat_interleave(copies, dim=0), cache.repeat(copies)
    active, position = list(writers), 0
    while True:
        tokens = sampler.draw(logits, active, position)
        for writer, token in zip(active, tokens, strict=True):
            writer.put(token, token in ends)
        if streamer is not None:
            streamer.put(torch.tensor(tokens))
        for row in reversed([i for i, writer in enumerate(active) if writer.generation.finish_reason]):
            cache.drop(row)
            active[row] = active[-1]
            active.pop()
        if not active:
            return
        last = torch.tensor([[writer.generation.ids[-1]] for writer in active], device=model.device)
        slots = Slots.ragged([writer.length - 1 for writer in active], model.device)
        logits = model(last, cache, slots)[:, -1]  # [B, V]
        position += 1


def searched(
    model: Llama,
    tokenizer: Tokenizer,
    searches: list[Search],
    chooser: Chooser,
    count: int,
    stops: Sequence[str],
    model_logprobs: bool,
) -> list[list[Generation]]:
    """The `count` best texts of each search. Raises: ValueError where one has fewer."""
    length = max(len(search.prompt) + search.room for search in searches)
    logits, cache = prefill(model, [search.prompt for search in searches], length)
    beam_search(model, logits, cache, searches, chooser)
    for search in searches:
        if len(search.finished) < count:
            prompt = tokenizer.decode(search.prompt)[:40]
            raise ValueError(
                f"num_return_sequences must be at most {len(search.finished)}, the texts there are after {prompt!r} "
                f"under these filters, this vocabulary and length; got {count}"
            )
    return [
        [written(search, beam, tokenizer, stops, model_logprobs) for beam in search.finished[:count]]
        for search in searches
    ]


def written(
    search: Search, beam: Beam, tokenizer: Tokenizer, stops: Sequence[str] = (), model_logprobs: bool = True
) -> Generation:
    """A finished beam as a Generation."""
    writer = Writer(0, search.prompt, search.room, search.stream, tokenizer, stops, on_text=None)
    for one in beam.path():
        writer.put(one.token, one.token in search.rules.ends)
        writer.generation.logprobs.append(one.logprob)
        if model_logprobs:
            writer.generation.model_logprobs.append(one.model_logprob)
    writer.generation.score = search.score(beam)
    return writer.generation


def stop_check(tokenizer: Tokenizer, stops: Sequence[str]) -> Callable[[list[int]], bool] | None:
    """Whether the text of some ids holds a stop string; None where there are none to look for."""
    if not stops:
        return None

    def is_stopped(ids: list[int]) -> bool:
        decoder = tokenizer.stream()
        text = "".join(decoder.put(i) for i in ids)
        return any(stop in text for stop in stops)

    return is_stopped


def prefill(model: Llama, prompt_ids: list[list[int]], length: int) -> tuple[Tensor, KVCache]:
    """Logits [B, V] after each prompt, and a cache of `length` slots that holds the prompts.

    Shorter prompts are padded at their end, where causality keeps the padding out of sight.
    Raises: ValueError naming the model where it gives no numbers.
    """
    lengths = torch.tensor([len(ids) for ids in prompt_ids], device=model.device)
    padded = torch.zeros(len(prompt_ids), max(map(len, prompt_ids)), dtype=torch.long)
    for row, ids in zip(padded, prompt_ids, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    cache = model.new_cache(len(prompt_ids), length)
    hidden = model.hidden(padded.to(model.device), cache)  # [B, L, E]
    logits = model.logits(hidden[torch.arange(len(hidden), device=model.device), lengths - 1])
    if not (logits < torch.inf).all():
        raise ValueError(
            f"{model.source}: gives NaN or +inf after the prompt: its weights hold some, or {model.dtype} is too narrow"
        )
    return logits, cache


class Sampler:
    """The parameters that stay the same through a call, and the draw at each step."""

    def __init__(
        self, params: SamplingParams, seed: int, model_logprobs: bool, backend: str, recorder: Recorder | None
    ) -> None:
        self.params, self.packed = params, samplers.pack(params)
        self.seed, self.details, self.backend, self.recorder = seed, model_logprobs, backend, recorder

    def draw(self, logits: Tensor, writers: list[Writer], position: int) -> list[int]:
        """One token a writer; its logprobs go to the writer."""
        history: dict[str, Any] = {}
        if self.params.uses_history:
            history["history"] = [writer.prompt + writer.generation.ids for writer in writers]
            history["history_start"] = [len(writer.prompt) for writer in writers]
        out = samplers.sample(
            logits,
            self.packed,
            seed=self.seed,
            position=position,
            stream=[writer.stream for writer in writers],
            details=self.details,
            backend=self.backend,
            **history,
        )
        for writer, logprob in zip(writers, out.logprobs.tolist(), strict=True):
            writer.generation.logprobs.append(logprob)
        if self.details:
            for writer, logprob in zip(writers, out.model_logprobs.tolist(), strict=True):
                writer.generation.model_logprobs.append(logprob)
        if self.recorder is not None:
            self.recorder.put([writer.number for writer in writers], logits, out.tokens, **history)
        return out.tokens.tolist()


class Writer:
    """One sequence as it grows: its ids, its text, and whether it is done."""

    def __init__(
        self,
        number: int,
        prompt: list[int],
        room: int,
        stream: int,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        on_text: Callable[[int, str], None] | None,
    ) -> None:
        self.number, self.prompt, self.room, self.stream, self.on_text = number, prompt, room, stream, on_text
        self.decoder, self.stops = tokenizer.stream(), StopStrings(stops)
        self.generation = Generation()

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.generation.ids)

    def put(self, token: int, is_end: bool) -> None:
        self.generation.ids.append(token)
        self.show(self.stops.put(self.decoder.put(token)))
        if self.stops.found:
            self.generation.finish_reason = "stop"
        elif is_end or len(self.generation.ids) == self.room:
            self.generation.finish_reason = "eos" if is_end else "length"
            self.show(self.stops.put(self.decoder.end()) + self.stops.end())

    def show(self, text: str) -> None:
        self.generation.text += text
        if text and self.on_text is not None:
            self.on_text(self.number, text)


def encoded(prompts: str | Sequence[Prompt], tokenizer: Tokenizer, vocabulary: int) -> list[list[int]]:
    """Token ids of each prompt, each at least one token within the model's vocabulary."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(texts, Sequence):
        raise TypeError(f"prompts must be a text or a list of texts or lists of ids, got {type(prompts).__name__}")
    if not texts:
        raise ValueError("prompts must hold at least one prompt, got none")
    return [encoded_prompt(f"prompts[{i}]", prompt, tokenizer, vocabulary) for i, prompt in enumerate(texts)]


def encoded_prompt(name: str, prompt: Prompt, tokenizer: Tokenizer, vocabulary: int) -> list[int]:
    if isinstance(prompt, str):
        prompt = tokenizer.encode(prompt)
    if not isinstance(prompt, Sequence):
        raise TypeError(f"{name} must be a text or a list of token ids, got {prompt!r}")
    ids = [integer(f"{name}: a token id", token) for token in prompt]
    if not ids:
        raise ValueError(f"{name} must hold at least one token, got none")
    for token in ids:
        if not 0 <= token < vocabulary:
            pieces = f"(the tokenizer has {tokenizer.vocab_size} pieces)"
            raise ValueError(f"{name} must hold token ids in 0 .. {vocabulary - 1}, got {token} {pieces}")
    return ids


def ending_ids(model: Llama, eos_token_id: int | Sequence[int] | None) -> tuple[int, ...]:
    """The ids that end a text: those given, else the model's. Raises: ValueError naming eos_token_id."""
    return model.eos_token_ids if eos_token_id is None else token_ids(eos_token_id, model.config.vocab_size)


def check_beams(count: int, rules: BeamRules, **others: Any) -> None:
    """Raises ValueError for more texts than beams, and for what only a single growing text can serve."""
    if count > rules.num_beams:
        raise ValueError(f"num_return_sequences must be at most num_beams = {rules.num_beams}, got {count}")
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{name} must be None with num_beams above 1, got {value!r}")


def checked_streams(stream: Sequence[int] | None, sequences: int) -> Sequence[int]:
    if stream is None:
        return range(sequences)
    if not isinstance(stream, Sequence):
        raise TypeError(f"stream must be a list of {sequences} integers, one a sequence, got {stream!r}")
    if len(stream) != sequences:
        raise ValueError(f"stream must hold one number for each of {sequences} sequences, got {len(stream)}")
    return [integer("stream: a number", number) % 2**64 for number in stream]


def checked_stops(stop_strings: str | Sequence[str] | None) -> list[str]:
    stops = [stop_strings] if isinstance(stop_strings, str) else stop_strings or []
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) and s for s in stops):
        raise ValueError(f"stop_strings must be non-empty strings, got {stop_strings!r}")
    return list(stops)


def rooms(prompt_ids: list[list[int]], max_new_tokens: int | None, max_length: int | None, window: int) -> list[int]:
    """How many tokens may follow each prompt; max_new_tokens goes before max_length, as in transformers."""
    if max_new_tokens is not None:
        wanted = [integer("max_new_tokens", max_new_tokens, 1)] * len(prompt_ids)
    else:
        total = window if max_length is None else integer("max_length", max_length, 1)
        wanted = [total - len(ids) for ids in prompt_ids]
    for number, (ids, new) in enumerate(zip(prompt_ids, wanted, strict=True)):
        if new < 1:
            limit = f"max_length = {max_length}" if max_length is not None else f"the model's window of {window}"
            raise ValueError(
                f"prompts[{number}] has {len(ids)} tokens, which leaves {new} of {limit}: shorten the prompt"
            )
        if len(ids) + new > window:
            raise ValueError(
                f"prompts[{number}]: {len(ids)} prompt tokens + {new} new = {len(ids) + new} > {window}, the model's "
                f"window (max_position_embeddings): shorten one of them by {len(ids) + new - window}"
            )
    return wanted


def sampling_params(defaults: dict[str, Any], do_sample: bool | None, given: dict[str, Any]) -> SamplingParams:
    """What was given, then the model's generation_config, then off; greedy keeps the penalties alone."""
    unknown = sorted(set(given) - set(SAMPLING))
    if unknown:
        raise TypeError(f"generate() got an unknown argument {unknown[0]!r}; sampling takes {', '.join(SAMPLING)}")
    given = {name: value for name, value in given.items() if value is not None}
    if do_sample is not None and not isinstance(do_sample, bool):
        raise TypeError(f"do_sample must be True, False or None, got {do_sample!r}")
    if do_sample is None:
        do_sample = bool(defaults.get("do_sample")) or any(name not in PENALTIES for name in given)
    values = {name: defaults[name] for name in SAMPLING if defaults.get(name) is not None} | given
    if not do_sample:
        values = {name: value for name, value in values.items() if name in PENALTIES} | {"temperature": 0.0}
    return SamplingParams(**values)


def random_seed() -> int:
    return int(torch.randint(0, 2**63 - 1, ()))
