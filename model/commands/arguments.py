"""Options shared by several commands: the model and its sampling."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch

from model.llama import Llama
from model.packed import TYPES
from model.tokenizer import Tokenizer
from model.untrusted import shown
from samplers.params import PENALTIES
from samplers.reference.filters import FILTERS

SAMPLING = {  # option: (type, help); default the model's generation_config
    "temperature": (float, "0 takes the most probable token, 1 the model's own distribution"),
    **{f.name.replace("_", "-"): (type(f.off), f"{f.summary} ({f.off:g}: off)") for f in FILTERS},
    "repetition-penalty": (float, "divide the logits of tokens already seen"),
    "presence-penalty": (float, "take off the logit of every token already generated"),
    "frequency-penalty": (float, "the same for each time it was generated"),
    "min-tokens-to-keep": (int, "no filter leaves fewer"),
}

FLOATS = tuple(TYPES.values())
EARLY_STOPPING: dict[str, bool | str] = {"no": False, "yes": True, "never": "never"}


def add_sampling_arguments(parser: argparse.ArgumentParser, description: str) -> argparse._ArgumentGroup:
    """A group with every numeric field of SamplingParams, and the seed."""
    sampling = parser.add_argument_group("sampling", description)
    for name, (kind, text) in SAMPLING.items():
        names = [f"--{name}", "--temp"] if name == "temperature" else [f"--{name}"]
        sampling.add_argument(*names, type=kind, metavar="N" if kind is int else "X", help=text)
    sampling.add_argument(
        "-s", "--seed", type=int, metavar="N", help="the same seed gives the same text; default random"
    )
    return sampling


def add_beam_arguments(parser: argparse.ArgumentParser, description: str) -> None:
    beams = parser.add_argument_group("beams", description)
    beams.add_argument(
        "--beams", "--num-beams", type=int, metavar="N", help="texts that live at a time, at most 1024; default: none"
    )
    sample = "draw the beams by the sampling options and the seed"
    beams.add_argument("--sample", action="store_true", default=None, help=sample)
    score = "score = sum of logprobs / length^X; default 1"
    beams.add_argument("--length-penalty", type=float, metavar="X", help=score)
    stopping = "yes: stop with N finished texts; no (default): when no better one is likely; never: when none can come"
    beams.add_argument("--early-stopping", choices=tuple(EARLY_STOPPING), help=stopping)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="a Llama folder: config.json, *.safetensors, tokenizer.model"
    )
    parser.add_argument("-m", "--model", dest="model_option", metavar="MODEL", help="the same as an option")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="default: cuda if available")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", *FLOATS),
        help="that the model computes in; default float32 on the CPU, as stored on a GPU or with --quantize",
    )
    parser.add_argument("--weights", choices=FLOATS, help="round the weights to this type first; default: as stored")
    parser.add_argument("--adapter", metavar="FOLDER", help="a LoRA adapter as PEFT saves it, merged into the weights")
    parser.add_argument(
        "--quantize", choices=("int8", "nf4", "fp4"), help="the layers' matrices, by bitsandbytes (the extra quant)"
    )
    parser.add_argument("--double-quant", action="store_true", help="with nf4 or fp4: quantize their scales as well")


def checked_text(option: str, text: str) -> str:
    """The text. Raises: ValueError naming the option where its bytes are no UTF-8, which Python reads as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{option} must be valid UTF-8, got {shown(text)}") from None
    return text


def given_sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """The given sampling options, by their names in Python."""
    names = [name.replace("-", "_") for name in SAMPLING]
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def chosen_seed(arguments: argparse.Namespace) -> int:
    """--seed, or a random one."""
    return int.from_bytes(os.urandom(4), "little") if arguments.seed is None else arguments.seed


def given_beams(arguments: argparse.Namespace) -> dict[str, Any]:
    """The beam options by their names in Python, {} without --beams.

    Raises: ValueError for a beam option without --beams, and for a sampling option without --sample.
    """
    if arguments.beams is None:
        for name in ("sample", "length_penalty", "early_stopping"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} needs --beams N")
        return {}
    drawing = [*given_sampling(arguments), *(["seed"] if arguments.seed is not None else [])]
    for name in () if arguments.sample else drawing:
        if name not in PENALTIES:
            raise ValueError(f"--{name.replace('_', '-')} needs --sample if --beams is given")
    penalty = arguments.length_penalty
    return {
        "num_beams": arguments.beams,
        "length_penalty": 1.0 if penalty is None else penalty,
        "early_stopping": EARLY_STOPPING[arguments.early_stopping or "no"],
    }


def model_folder(arguments: argparse.Namespace) -> str | None:
    """MODEL or --model; None is the built-in storyteller."""
    if arguments.model is not None and arguments.model_option is not None:
        raise ValueError(f"MODEL must be given once, got {arguments.model!r} and --model {arguments.model_option!r}")
    folder: str | None = arguments.model if arguments.model is not None else arguments.model_option
    if folder == "":
        raise ValueError("MODEL must be a folder, got ''")
    return folder


def model_name(arguments: argparse.Namespace) -> str:
    """The model's name for people, with its adapter and quantization."""
    folder = model_folder(arguments)
    names = ["the built-in storyteller" if folder is None else Path(folder).resolve().name]
    if arguments.adapter is not None:
        names.append(f"adapter {Path(arguments.adapter).resolve().name}")
    if arguments.quantize is not None:
        names.append(arguments.quantize + " with double quantization" * arguments.double_quant)
    return ", ".join(names)


def chosen_device(arguments: argparse.Namespace) -> str:
    if arguments.device != "auto":
        return str(arguments.device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def chosen_dtype(arguments: argparse.Namespace) -> torch.dtype | None:
    """That the model computes in; None: the file's own."""
    if arguments.dtype != "auto":
        return dtype_of(arguments.dtype)
    return torch.float32 if chosen_device(arguments) == "cpu" and arguments.quantize is None else None


def dtype_of(name: str | None) -> torch.dtype | None:
    return None if name is None else getattr(torch, name)


def load_model(arguments: argparse.Namespace) -> tuple[Llama, Tokenizer]:
    folder = model_folder(arguments)
    tokenizer = Tokenizer.from_pretrained(folder)  # before the weights, which may take a while
    changes = {name: getattr(arguments, name) for name in ("adapter", "quantize", "double_quant")}
    llama = Llama.from_pretrained(
        folder,
        dtype=chosen_dtype(arguments),
        device=chosen_device(arguments),
        weights=dtype_of(arguments.weights),
        **changes,
    )
    return llama, tokenizer


def model_settings(arguments: argparse.Namespace, llama: Llama) -> dict[str, Any]:
    """Everything that the model's logits depend on, by name; it identifies the results of one model."""
    folder, adapter = model_folder(arguments), arguments.adapter
    return {
        "model": "built-in" if folder is None else str(Path(folder).resolve()),
        "adapter": None if adapter is None else str(Path(adapter).resolve()),
        "quantize": arguments.quantize,
        "double_quant": arguments.double_quant,
        "device": llama.device.type,
        "dtype": str(llama.dtype).removeprefix("torch."),
        "weights": arguments.weights or "as stored",
    }
