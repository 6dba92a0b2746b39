"""`alea generate`: prompts in, stories out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model import Generation, Llama, Tokenizer

HELP = "continue a text; with no MODEL, by the built-in storyteller"
NEW_TOKENS = 200
BATCH = 16  # prompts that are continued at a time
SAMPLING = {  # option: (type, help); each is left to the model's generation_config where it is not given
    "temperature": (float, "0 takes the most probable token, 1 the model's own distribution"),
    "top-k": (int, "keep the k most probable tokens, 0: all"),
    "top-p": (float, "keep the fewest tokens that hold this mass"),
    "min-p": (float, "keep tokens at least this fraction as probable as the first"),
    "typical-p": (float, "keep the tokens nearest the entropy that hold this mass"),
    "epsilon-cutoff": (float, "least probability"),
    "eta-cutoff": (float, "least probability, lower where the entropy is high"),
    "repetition-penalty": (float, "divide the logits of tokens already seen"),
    "presence-penalty": (float, "take off the logit of every token already generated"),
    "frequency-penalty": (float, "the same for each time it was generated"),
    "min-tokens-to-keep": (int, "no filter leaves fewer"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    prompts = parser.add_argument_group("prompts", "given here, or else read from standard input, one a line")
    prompts.add_argument("-p", "--prompt", action="append", metavar="TEXT", help="may be given several times")
    prompts.add_argument("-f", "--prompt-file", type=Path, metavar="FILE", help="one prompt a line")
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
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a text, with ids and logprobs")
    output.add_argument(
        "--logprobs",
        type=int,
        metavar="N",
        help="raw and final logprobs, with N alternatives a token: a table below each text, or in the JSON",
    )
    output.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, default=True, help="show a single text as it grows (default)"
    )


def add_sampling_arguments(parser: argparse.ArgumentParser, default: str) -> Any:
    """A group with every field of SamplingParams that a number can set, and the seed."""
    sampling = parser.add_argument_group("sampling", default)
    for name, (kind, text) in SAMPLING.items():
        names = [f"--{name}", "--temp"] if name == "temperature" else [f"--{name}"]
        sampling.add_argument(*names, type=kind, metavar="N" if kind is int else "X", help=text)
    sampling.add_argument(
        "-s", "--seed", type=int, metavar="N", help="the same seed gives the same text; default random"
    )
    return sampling


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a Llama folder: config.json, *.safetensors, tokenizer.model"
    )
    parser.add_argument("-m", "--model", dest="model_option", metavar="MODEL", help="the same as an option")
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: cuda where there is one"
    )
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "float16", "bfloat16"),
        help=("of the weights in memory; default float32 on the CPU, as stored on a GPU"),
    )


def run(arguments: argparse.Namespace) -> int:
    prompts = read_prompts(arguments)
    llama, tokenizer = load_model(arguments)
    seed = int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed
    texts = len(prompts) * arguments.num_return_sequences
    began, tokens, written = time.perf_counter(), 0, 0
    if texts == 1 and arguments.stream and not arguments.json:
        tokens = len(stream_text(arguments, llama, tokenizer, prompts, seed).ids)
    else:
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            with waiting(f"writing {texts - written} texts"):
                results = continue_prompts(arguments, llama, tokenizer, batch, seed, first_stream=written)
            for prompt, row in zip(batch, results, strict=True):
                for generation in row:
                    show_text(arguments, prompt, generation, seed, written, texts)
                    written, tokens = written + 1, tokens + len(generation.ids)
    report_speed(tokens, time.perf_counter() - began, seed)
    return 0


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    prompts = list(arguments.prompt or ())
    if arguments.prompt_file is not None:
        try:
            prompts += lines(arguments.prompt_file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"{arguments.prompt_file}: must be UTF-8 text ({error})") from None
    elif not prompts and sys.stdin is not None:
        if sys.stdin.isatty():
            print("alea generate: type a prompt, end with Ctrl-D", file=sys.stderr)
        prompts = lines(sys.stdin.read())
    if not prompts:
        raise ValueError("a prompt is needed: -p TEXT, -f FILE, or lines on standard input; got none")
    return prompts


def lines(text: str) -> list[str]:
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def load_model(arguments: argparse.Namespace) -> tuple[Llama, Tokenizer]:
    import torch

    from model import Llama, Tokenizer

    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if arguments.dtype == "auto":
        dtype = torch.float32 if device == "cpu" else None
    else:
        dtype = getattr(torch, arguments.dtype)
    if arguments.model is not None and arguments.model_option is not None:
        raise ValueError(f"MODEL must be given once, got {arguments.model!r} and --model {arguments.model_option!r}")
    folder = arguments.model if arguments.model is not None else arguments.model_option
    if folder == "":
        raise ValueError("MODEL must be a folder, got ''")
    tokenizer = Tokenizer.from_pretrained(folder)  # before the weights, which may take a while
    return Llama.from_pretrained(folder, dtype=dtype, device=device), tokenizer


def continue_prompts(
    arguments: argparse.Namespace,
    llama: Llama,
    tokenizer: Tokenizer,
    prompts: list[str],
    seed: int,
    first_stream: int = 0,
    on_text: Callable[[int, str], None] | None = None,
) -> list[list[Generation]]:
    from model import generate

    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in SAMPLING}
    new_tokens = arguments.max_new_tokens
    if new_tokens is None and arguments.max_length is None:
        left = llama.config.max_position_embeddings - max(len(tokenizer.encode(p)) for p in prompts)
        new_tokens = min(NEW_TOKENS, left) if left > 0 else None  # None: generate's error says what is too long
    says_greedy = llama.generation_config.get("do_sample") is False
    sequences = len(prompts) * arguments.num_return_sequences
    return generate(
        llama,
        tokenizer,
        prompts,
        max_new_tokens=new_tokens,
        max_length=arguments.max_length,
        do_sample=None if says_greedy else True,
        num_return_sequences=arguments.num_return_sequences,
        stop_strings=arguments.stop,
        seed=seed,
        stream=range(first_stream, first_stream + sequences),
        on_text=on_text,
        model_logprobs=arguments.json,
        logprobs=arguments.logprobs,
        backend=arguments.backend,
        **given,
    )


def stream_text(
    arguments: argparse.Namespace, llama: Llama, tokenizer: Tokenizer, prompts: list[str], seed: int
) -> Generation:
    """Show the prompt with the first text that follows it, so that nothing is shown of a call that is refused."""
    waiting_prompts = list(prompts)

    def on_text(_: int, text: str) -> None:
        show("".join(waiting_prompts) + text)
        waiting_prompts.clear()

    ((generation,),) = continue_prompts(arguments, llama, tokenizer, prompts, seed, on_text=on_text)
    on_text(0, "\n")
    show_logprobs(generation)
    return generation


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def show_text(
    arguments: argparse.Namespace, prompt: str, generation: Generation, seed: int, number: int, texts: int
) -> None:
    if arguments.json:
        line: dict[str, Any] = {"prompt": prompt, **json_fields(generation), "seed": seed, "stream": number}
        show(json.dumps(line, ensure_ascii=False) + "\n")
    elif texts == 1:
        show(f"{prompt}{generation.text}\n")
    else:
        show(f"{chr(10) if number else ''}[{number + 1}/{texts}] {prompt}{generation.text}\n")
    if not arguments.json:
        show_logprobs(generation)


def json_fields(generation: Generation) -> dict[str, Any]:
    """The generation's fields; with --logprobs, `logprobs` is OpenAI's object of the raw ones, no list any more."""
    fields = dict(vars(generation))
    asked = fields.pop("completion_logprobs")
    return (
        fields if asked is None else fields | {"logprobs": asked.to_openai(), "final_logprobs": asked.to_openai(True)}
    )


def show_logprobs(generation: Generation) -> None:
    """A table of the tokens below their text, where --logprobs asked for it."""
    asked = generation.completion_logprobs
    if asked is None:
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("token", box=SIMPLE_HEAD)
    for heading in ("id", "raw\nlogprob", "final\nlogprob"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("most probable\n(raw logprob)" if any(asked.top_logprobs) else "")
    columns = (asked.tokens, asked.token_ids, asked.token_logprobs, asked.final_logprobs, asked.top_logprobs)
    for token, i, raw, final, top in zip(*columns, strict=True):
        likely = "  ".join(f"{visible(one.token)}({one.logprob:.3f})" for one in top)
        table.add_row(Text(visible(token)), str(i), f"{raw:.3f}", f"{final:.3f}", Text(likely))
    Console(file=sys.stdout, highlight=False).print(table)


def visible(token: str) -> str:
    """Spaces as the vocabulary writes them, and escapes for what does not print."""
    return "".join("▁" if c == " " else c if c.isprintable() else repr(c)[1:-1] for c in token)


def waiting(message: str) -> AbstractContextManager[Any]:
    """A sign of life on stderr while nothing is shown; nothing where stderr is no terminal."""
    from rich.console import Console

    return Console(stderr=True).status(message)


def report_speed(tokens: int, seconds: float, seed: int) -> None:
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).print(
            f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} a second · seed {seed}",
            style="dim",
            highlight=False,
        )
