"""`alea generate`: prompts in, stories out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model import Generation, Llama, Tokenizer

HELP = "continue a text; with no MODEL, by the built-in storyteller"
NEW_TOKENS = 200
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
    parser.formatter_class = argparse.HelpFormatter
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
    sampling = parser.add_argument_group("sampling", "default: what the model's generation_config.json says")
    for name, (kind, text) in SAMPLING.items():
        names = [f"--{name}", "--temp"] if name == "temperature" else [f"--{name}"]
        sampling.add_argument(*names, type=kind, metavar="N" if kind is int else "X", help=text)
    sampling.add_argument(
        "-s", "--seed", type=int, metavar="N", help="the same seed gives the same text; default random"
    )
    sampling.add_argument(
        "-r", "--num-return-sequences", type=int, default=1, metavar="N", help="texts a prompt; default 1"
    )
    sampling.add_argument("--backend", default="auto", metavar="NAME", help="auto, reference, native or triton")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="one JSON object a text, with ids and logprobs")
    output.add_argument(
        "--stream", action=argparse.BooleanOptionalAction, default=True, help="show a single text as it grows (default)"
    )


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
    single = len(prompts) * arguments.num_return_sequences == 1 and not arguments.json
    live = single and arguments.stream
    if live:
        show(prompts[0])
    began = time.perf_counter()
    results = continue_prompts(arguments, llama, tokenizer, prompts, seed, live)
    seconds = time.perf_counter() - began
    if live:
        show("\n")
    elif arguments.json:
        show_json(prompts, results, seed)
    else:
        show_texts(prompts, results)
    report_speed(sum(len(g.ids) for row in results for g in row), seconds, seed)
    return 0


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    prompts = list(arguments.prompt or ())
    if arguments.prompt_file is not None:
        prompts += lines(arguments.prompt_file.read_text(encoding="utf-8"))
    elif not prompts:
        if sys.stdin.isatty():
            print("alea generate: type a prompt, end with Ctrl-D", file=sys.stderr)
        prompts = lines(sys.stdin.read())
    if not prompts:
        raise ValueError("a prompt is needed: -p TEXT, -f FILE, or lines on standard input; got none")
    return prompts


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def load_model(arguments: argparse.Namespace) -> tuple[Llama, Tokenizer]:
    import torch

    from model import Llama, Tokenizer

    device = arguments.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch.cuda.is_available() is False; use --device cpu")
    if arguments.dtype == "auto":
        dtype = torch.float32 if device == "cpu" else None
    else:
        dtype = getattr(torch, arguments.dtype)
    folder = arguments.model or arguments.model_option
    return Llama.from_pretrained(folder, dtype=dtype, device=device), Tokenizer.from_pretrained(folder)


def continue_prompts(
    arguments: argparse.Namespace, llama: Llama, tokenizer: Tokenizer, prompts: list[str], seed: int, live: bool
) -> list[list[Generation]]:
    from model import generate

    given = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in SAMPLING}
    new_tokens = arguments.max_new_tokens
    if new_tokens is None and arguments.max_length is None:
        window = llama.config.max_position_embeddings
        left = window - max(len(tokenizer.encode(p)) for p in prompts)
        new_tokens = min(NEW_TOKENS, left) if left > 0 else None  # None: generate's error says what is too long
    return generate(
        llama,
        tokenizer,
        prompts,
        max_new_tokens=new_tokens,
        max_length=arguments.max_length,
        do_sample=True,  # --temperature 0 is the greedy choice
        num_return_sequences=arguments.num_return_sequences,
        stop_strings=arguments.stop,
        seed=seed,
        on_text=(lambda _, text: show(text)) if live else None,
        model_logprobs=arguments.json,
        backend=arguments.backend,
        **given,
    )


def show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def show_texts(prompts: list[str], results: list[list[Generation]]) -> None:
    texts = [prompt + g.text for prompt, row in zip(prompts, results, strict=True) for g in row]
    if len(texts) == 1:
        show(texts[0] + "\n")
        return
    for number, text in enumerate(texts, 1):
        show(f"[{number}/{len(texts)}] {text}\n\n"[: None if number < len(texts) else -1])


def show_json(prompts: list[str], results: list[list[Generation]], seed: int) -> None:
    stream = 0
    for prompt, row in zip(prompts, results, strict=True):
        for g in row:
            line: dict[str, Any] = {"prompt": prompt, **vars(g), "seed": seed, "stream": stream}
            show(json.dumps(line, ensure_ascii=False) + "\n")
            stream += 1


def report_speed(tokens: int, seconds: float, seed: int) -> None:
    if sys.stderr.isatty():
        from rich.console import Console

        Console(stderr=True).print(
            f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:,.0f} a second · seed {seed}",
            style="dim",
            highlight=False,
        )
