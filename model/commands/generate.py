"""`alea generate`: prompts in, stories out."""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from model import files
from model.commands.arguments import (
    add_beam_arguments,
    add_model_arguments,
    add_sampling_arguments,
    checked_text,
    chosen_seed,
    given_beams,
    given_sampling,
    in_settings,
    load_model,
)
from model.commands.logprobs_table import show_logprobs
from model.commands.output import add_output_argument, check_output
from model.commands.prompts import add_prompt_arguments, read_prompts
from model.commands.terminal import counted, progress, report_speed, show, tell

if TYPE_CHECKING:
    from model import Generation, Llama, Tokenizer
    from model.commands.answers import AnswerFile, AnswerStream

HELP = "continue a text; with no MODEL, by the built-in storyteller"
NEW_TOKENS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_prompt_arguments(parser).add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="prompts that are continued at a time, of at most 256 texts; default 16",
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
    sampling = add_sampling_arguments(parser, "default: what the model's generation_config.json says")
    sampling.add_argument(
        "-r", "--num-return-sequences", type=int, default=1, metavar="N", help="texts a prompt; default 1"
    )
    sampling.add_argument("--backend", default="auto", metavar="NAME", help="auto, reference, native or triton")
    add_beam_arguments(parser, "several texts a prompt grow side by side, and the best return")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a text, with ids and logprobs")
    add_output_argument(
        output,
        "-o",
        "--out",
        metavar="FILE",
        help="the JSON lines into a new file; after a Ctrl-C the same command goes on where it was. A pipe or a device "
        "takes them as they come",
        replaced="a file that is there already, once the new one is complete, and a .part of another run",
    )
    output.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="raw and final logprobs, with N alternatives a token: a table below each text, or in the JSON",
    )
    output.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, help="show a single text as it grows (default)"
    )


def run(arguments: argparse.Namespace) -> int:
    check_output(arguments.out, "--out", arguments.overwrite)
    beams, prompts = given_beams(arguments), read_prompts(arguments)
    is_single = len(prompts) * arguments.num_return_sequences == 1
    can_stream = is_single and not (beams or arguments.json or arguments.out)
    check_options(arguments, can_stream)
    call = Call(arguments, prompts, beams, *load_model(arguments))
    began = time.perf_counter()
    if arguments.out is not None:
        return write_answers(call)
    tokens = stream_text(call) if can_stream and arguments.stream is not False else show_texts(call)
    report_speed(tokens, time.perf_counter() - began, call.seed)
    return 0


def check_options(arguments: argparse.Namespace, can_stream: bool) -> None:
    """Before anything is loaded. Raises: ValueError for an option that is out of range or would not be heeded."""
    from samplers.params import integer

    integer("--batch-size", arguments.batch_size, 1)
    for stop in arguments.stop or ():
        checked_text("--stop", stop)
    if arguments.max_new_tokens is not None and arguments.max_length is not None:
        raise ValueError("--max-new-tokens and --max-length both limit the length: give one of them")
    if arguments.stream and not can_stream:
        raise ValueError("--stream shows a single text as it grows: not several, nor with --beams, --json or --out")


class Call:
    """The prompts and options of one run, and `generate`'s keywords made of them."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        prompts: list[str],
        beams: dict[str, Any],
        llama: Llama,
        tokenizer: Tokenizer,
    ) -> None:
        self.arguments, self.prompts, self.beams = arguments, prompts, beams
        self.llama, self.tokenizer = llama, tokenizer
        self.prompt_ids = [tokenizer.encode(prompt) for prompt in prompts]
        self.texts = len(prompts) * arguments.num_return_sequences
        self.seed = chosen_seed(arguments)

    @cached_property
    def options(self) -> dict[str, Any]:
        arguments = self.arguments
        return {
            "max_new_tokens": self.new_tokens(),
            "max_length": arguments.max_length,
            "do_sample": self.do_sample(),
            "num_return_sequences": arguments.num_return_sequences,
            **self.beams,
            "stop_strings": arguments.stop,
            "logprobs": arguments.logprobs,
            "backend": arguments.backend,
            **given_sampling(arguments),
        }

    def new_tokens(self) -> int | None:
        """The default hangs on the longest of all prompts, so that a text does not hang on its batch."""
        given: int | None = self.arguments.max_new_tokens
        if given is not None or self.arguments.max_length is not None:
            return given
        longest = max(map(len, self.prompt_ids))
        left = self.llama.config.max_position_embeddings - longest
        return min(NEW_TOKENS, left) if left > 0 else None  # None: generate's error says what is too long

    def do_sample(self) -> bool | None:
        if self.beams:
            return bool(self.arguments.sample)
        says_greedy = self.llama.generation_config.get("do_sample") is False
        return None if says_greedy else True

    def continued(self, skip: Collection[int] = ()) -> Iterator[tuple[int, Generation]]:
        """(number of the text, the text), batch by batch."""
        from model.decoding.batches import generate_texts

        as_json = self.arguments.json or self.arguments.out is not None
        return generate_texts(
            self.llama,
            self.tokenizer,
            self.prompt_ids,
            batch_size=self.arguments.batch_size,
            skip=skip,
            seed=self.seed,
            model_logprobs=as_json,
            **self.options,
        )

    def stream(self, on_text: Callable[[int, str], None]) -> Generation:
        from model import generate

        ((generation,),) = generate(
            self.llama,
            self.tokenizer,
            self.prompt_ids,
            seed=self.seed,
            on_text=on_text,
            model_logprobs=False,
            **self.options,
        )
        return generation

    def settings(self) -> dict[str, Any]:
        """What every text hangs on, as JSON gives it back."""
        digest = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()
        options = {name: value for name, value in self.options.items() if name != "backend"}
        model = in_settings(self.arguments, self.llama)
        return {"seed": self.seed, "prompts_sha256": digest[:16], **model, **options}


def write_answers(call: Call) -> int:
    """Into --out, prompt by prompt; returns the exit status."""
    from model.decoding.batches import by_prompt

    out, total, each = call.arguments.out, len(call.prompts), call.arguments.num_return_sequences
    began, tokens = time.perf_counter(), 0
    with opened(call) as file:
        call.seed = file.settings["seed"]
        if file.done:
            tell(f"going on after {len(file.done)} of {total} prompts in {file.where}")
        try:
            with progress("texts", call.texts) as told:
                texts = counted(call.continued(skip=file.done), told, len(file.done) * each)
                for number, row in by_prompt(texts, each):
                    file.add(number, [json_line(call, number * each + place, one) for place, one in enumerate(row)])
                    tokens += sum(len(one.ids) for one in row)
        except KeyboardInterrupt:
            advice = "" if file.where == out else "; the same command goes on from there"
            tell(f"stopped: {len(file.done)} of {total} prompts are in {file.where}{advice}")
            return 130
        file.finish()
    tell(f"wrote {out}: {call.texts} texts of {total} prompts")
    report_speed(tokens, time.perf_counter() - began, call.seed)
    return 0


def opened(call: Call) -> AnswerFile | AnswerStream:
    from model.commands.answers import AnswerFile, AnswerStream

    out, settings = call.arguments.out, call.settings()
    if files.is_stream(out):
        return AnswerStream(out, settings)
    texts, any_seed = call.arguments.num_return_sequences, call.arguments.seed is None
    return AnswerFile(out, settings, texts, any_seed, call.arguments.overwrite)


def show_texts(call: Call) -> int:
    """In the order of the prompts, each as soon as all before it are there; returns how many tokens."""
    waiting: dict[int, Generation] = {}
    tokens = shown = 0
    with progress("texts", call.texts) as told:
        for number, generation in counted(call.continued(), told):
            waiting[number] = generation
            while shown in waiting:
                tokens += len(waiting[shown].ids)
                show_text(call, shown, waiting.pop(shown))
                shown += 1
    return tokens


def stream_text(call: Call) -> int:
    """Show the prompt with the first text that follows it, so that nothing is shown of a call that is refused."""
    waiting_prompts = list(call.prompts)

    def on_text(_: int, text: str) -> None:
        show("".join(waiting_prompts) + text)
        waiting_prompts.clear()

    generation = call.stream(on_text)
    on_text(0, "\n")
    show_logprobs(generation)
    return len(generation.ids)


def show_text(call: Call, number: int, generation: Generation) -> None:
    if call.arguments.json:
        show(json.dumps(json_line(call, number, generation), ensure_ascii=False) + "\n")
        return
    prompt = call.prompts[number // call.arguments.num_return_sequences]
    title = "" if call.texts == 1 else f"{chr(10) if number else ''}[{number + 1}/{call.texts}] "
    show(f"{title}{prompt}{generation.text}\n")
    show_logprobs(generation)


def json_line(call: Call, number: int, generation: Generation) -> dict[str, Any]:
    prompt = number // call.arguments.num_return_sequences
    stream = prompt if call.beams.get("num_beams", 1) > 1 else number
    return {"prompt": call.prompts[prompt], **json_fields(generation), "seed": call.seed, "stream": stream}


def json_fields(generation: Generation) -> dict[str, Any]:
    """The generation's fields; with --logprobs, `logprobs` is OpenAI's object of the raw ones, no list any more."""
    fields = {name: value for name, value in vars(generation).items() if name != "score" or value is not None}
    asked = fields.pop("completion_logprobs")
    return (
        fields if asked is None else fields | {"logprobs": asked.to_openai(), "final_logprobs": asked.to_openai(True)}
    )
