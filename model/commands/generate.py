"""`alea generate`: prompts in, stories out."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any

from model import interrupt
from model.commands.arguments import (
    add_beam_arguments,
    add_model_arguments,
    add_sampling_arguments,
    checked_text,
    chosen_seed,
    given_beams,
    given_sampling,
    load_model,
    model_settings,
)
from model.commands.generation_file import opened, write
from model.commands.grammar import add_grammar_arguments, given_grammar, grammar_source
from model.commands.logprobs_table import show_logprobs
from model.commands.output import add_output_argument, check_output
from model.commands.prompts import add_prompt_arguments, read_prompts
from model.commands.request_file import answer_file, is_request_file
from model.commands.terminal import counted, progress, report_speed, show, tell
from model.decoding.batches import by_prompt, generate_texts
from model.decoding.options import GenerationOptions
from model.decoding.prompts import encode_prompts
from model.decoding.writer import Generation, OnText
from model.llama import Llama
from model.tokenizer import Tokenizer
from samplers.grammar import Grammar
from samplers.params import integer

NEW_TOKENS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_prompt_arguments(parser, ", or requests as for alea serve").add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="prompts in one batch, which holds at most 256 texts; default 16",
    )
    length = parser.add_argument_group("length")
    length.add_argument(
        "-n",
        "--max-new-tokens",
        type=int,
        metavar="N",
        help=f"at most; default {NEW_TOKENS}, or what the window leaves",
    )
    length.add_argument("--max-length", type=int, metavar="N", help="at most, the prompt's tokens included")
    length.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be given several times"
    )
    sampling = add_sampling_arguments(parser, "default: the model's generation_config.json")
    sampling.add_argument(
        "-r", "--num-return-sequences", type=int, default=1, metavar="N", help="texts per prompt; default 1"
    )
    sampling.add_argument("--backend", default="auto", metavar="NAME", help="auto, reference, native or triton")
    add_beam_arguments(parser, "several texts per prompt grow side by side, and the best return")
    add_grammar_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object per text, with ids and logprobs")
    add_output_argument(
        output,
        "-o",
        "--out",
        metavar="FILE",
        help="write JSON lines to a new file; after a Ctrl-C the same command resumes. A pipe or a device gets them as "
        "they come",
        replaced="an existing file, once the new one is complete, and a .part of another run",
    )
    output.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="raw and final logprobs, with N alternatives per token: a table below each text, or in the JSON",
    )
    output.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, help="show a single text as it grows (default)"
    )


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, "--out", arguments.overwrite)
    if is_request_file(arguments):
        return answer_file(arguments)
    beams, prompts, grammar = given_beams(arguments), read_prompts(arguments), given_grammar(arguments)
    is_single = len(prompts) * arguments.num_return_sequences == 1
    can_stream = is_single and not (beams or arguments.json or arguments.out)
    check_options(arguments, can_stream)
    job = Job(arguments, prompts, beams, grammar, *load_model(arguments))
    began = time.perf_counter()
    if arguments.out is not None:
        return write_texts(job)
    tokens = stream_text(job) if can_stream and arguments.stream is not False else show_texts(job)
    report_speed(tokens, time.perf_counter() - began, job.seed)
    return 0


def check_options(arguments: argparse.Namespace, can_stream: bool) -> None:
    """Call it before loading. Raises: ValueError for an option that is out of range or would be ignored."""
    integer("--batch-size", arguments.batch_size, 1)
    for stop in arguments.stop or ():
        checked_text("--stop", stop)
    if arguments.max_new_tokens is not None and arguments.max_length is not None:
        raise ValueError("--max-new-tokens and --max-length both limit the length: give one of them")
    if arguments.stream and not can_stream:
        raise ValueError("--stream shows a single text as it grows: not several, nor with --beams, --json or --out")


class Job:
    """The prompts, model and options of one run."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        prompts: list[str],
        beams: dict[str, Any],
        grammar: Grammar | None,
        llama: Llama,
        tokenizer: Tokenizer,
    ) -> None:
        self.arguments, self.prompts, self.beams, self.grammar = arguments, prompts, beams, grammar
        self.llama, self.tokenizer = llama, tokenizer
        self.prompt_ids = encode_prompts(prompts, tokenizer, llama.config.vocab_size)
        self.texts_per_prompt = arguments.num_return_sequences
        self.text_count = len(prompts) * self.texts_per_prompt
        self.seed = chosen_seed(arguments)

    @cached_property
    def keywords(self) -> dict[str, Any]:
        """The options as keywords of `generate`."""
        arguments = self.arguments
        return {
            "max_new_tokens": self.max_new_tokens(),
            "max_length": arguments.max_length,
            "do_sample": self.do_sample(),
            "num_return_sequences": arguments.num_return_sequences,
            **self.beams,
            "stop_strings": arguments.stop,
            "logprobs": arguments.logprobs,
            **given_sampling(arguments),
        }

    def max_new_tokens(self) -> int | None:
        """The default is set by the longest prompt, so batching cannot change a text."""
        given: int | None = self.arguments.max_new_tokens
        if given is not None or self.arguments.max_length is not None:
            return given
        longest = max(map(len, self.prompt_ids))
        left = self.llama.config.max_position_embeddings - longest
        return min(NEW_TOKENS, left) if left > 0 else None  # None: generate's error names the prompt

    def do_sample(self) -> bool | None:
        if self.beams:
            return bool(self.arguments.sample)
        says_greedy = self.llama.generation_config.get("do_sample") is False
        return None if says_greedy else True

    def texts(self, skip: Collection[int] = (), on_text: OnText | None = None) -> Iterator[tuple[int, Generation]]:
        """(number of the text, the text), batch by batch."""
        options = GenerationOptions.for_model(
            self.llama,
            seed=self.seed,
            backend=self.arguments.backend,
            model_logprobs=self.arguments.json or self.arguments.out is not None,
            grammar=self.grammar,
            **self.keywords,
        )
        return generate_texts(
            self.llama,
            self.tokenizer,
            self.prompt_ids,
            options,
            batch_size=self.arguments.batch_size,
            skip=skip,
            on_text=on_text,
        )

    def settings(self) -> dict[str, Any]:
        """Everything a text depends on, as JSON values."""
        digest = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        model = model_settings(self.arguments, self.llama)
        return {
            "seed": self.seed,
            "prompts_sha256": digest[:16],
            **model,
            **self.keywords,
            **grammar_source(self.arguments),
        }


def write_texts(job: Job) -> int:
    """Into --out, prompt by prompt; returns the exit status."""
    arguments, each = job.arguments, job.texts_per_prompt
    began, tokens = time.perf_counter(), 0
    with opened(arguments.out, job.settings(), each, arguments.seed is None, arguments.overwrite) as file:
        job.seed = file.settings["seed"]

        def prompts() -> Iterator[tuple[int, list[dict[str, Any]]]]:
            nonlocal tokens
            with progress("texts", job.text_count) as on_progress:
                texts = counted(job.texts(skip=file.done), on_progress, len(file.done) * each)
                for number, row in by_prompt(texts, each):
                    tokens += sum(len(text.ids) for text in row)
                    yield number, [json_line(job, i, text) for i, text in enumerate(row, number * each)]

        if not write(file, prompts(), len(job.prompts)):
            return interrupt.STATUS
    tell(f"wrote {arguments.out}: {job.text_count} texts of {len(job.prompts)} prompts")
    report_speed(tokens, time.perf_counter() - began, job.seed)
    return 0


def show_texts(job: Job) -> int:
    """In the order of the prompts, each as soon as all texts before it are shown; returns the number of tokens."""
    waiting: dict[int, Generation] = {}
    tokens = shown = 0
    with progress("texts", job.text_count) as on_progress:
        for number, generation in counted(job.texts(), on_progress):
            waiting[number] = generation
            while shown in waiting:
                tokens += len(waiting[shown].ids)
                show_text(job, shown, waiting.pop(shown))
                shown += 1
    return tokens


def stream_text(job: Job) -> int:
    """Show the prompt together with the first text after it: a refused call shows nothing."""
    waiting_prompts = list(job.prompts)

    def on_text(_: int, text: str) -> None:
        show("".join(waiting_prompts) + text)
        waiting_prompts.clear()

    ((_, generation),) = job.texts(on_text=on_text)
    on_text(0, "\n")
    show_logprobs(generation)
    return len(generation.ids)


def show_text(job: Job, number: int, generation: Generation) -> None:
    if job.arguments.json:
        show(json.dumps(json_line(job, number, generation), ensure_ascii=False) + "\n")
        return
    prompt = job.prompts[number // job.texts_per_prompt]
    title = "" if job.text_count == 1 else f"{chr(10) if number else ''}[{number + 1}/{job.text_count}] "
    show(f"{title}{prompt}{generation.text}\n")
    show_logprobs(generation)


def json_line(job: Job, number: int, generation: Generation) -> dict[str, Any]:
    prompt = number // job.texts_per_prompt
    stream = prompt if job.beams.get("num_beams", 1) > 1 else number
    return {"prompt": job.prompts[prompt], **json_fields(generation), "seed": job.seed, "stream": stream}


def json_fields(generation: Generation) -> dict[str, Any]:
    """The generation's fields; with --logprobs, `logprobs` and `final_logprobs` are OpenAI's objects."""
    fields = {name: value for name, value in vars(generation).items() if name != "score" or value is not None}
    logprobs = fields.pop("completion_logprobs")
    if logprobs is None:
        return fields
    return fields | {"logprobs": logprobs.to_openai(), "final_logprobs": logprobs.to_openai(final=True)}
