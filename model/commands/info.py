"""`alea info`: versions, devices, the backends that work here, and whether a model computes exactly."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch

from model.commands.arguments import add_model_arguments, chosen_device, chosen_dtype, model_folder, model_name
from model.config import BUILT_IN, LlamaConfig
from model.exact import why_not_loaded
from model.loading.checkpoint import stored_dtype, tensor_homes
from model.versions import DISTRIBUTION, installed
from samplers import backends

PACKAGES = (DISTRIBUTION, "torch", "triton", "numpy", "safetensors", "sentencepiece", "transformers", "bitsandbytes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    sections = {"versions": versions(), "devices": devices(), "backends": backends(), "model": model(arguments)}
    if arguments.json:
        print(json.dumps(sections, indent=2))
        return 0
    for title, rows in sections.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<14} {value}")
    return 0


def model(arguments: argparse.Namespace) -> dict[str, str]:
    """The model that these options would load, without loading it."""
    folder = Path(model_folder(arguments) or BUILT_IN)
    config, device = LlamaConfig.from_pretrained(folder), torch.device(chosen_device(arguments))
    dtype = chosen_dtype(arguments) or stored_dtype(tensor_homes(folder))
    reason = why_not_loaded(config, dtype, device, arguments.quantize)
    return {"name": model_name(arguments), "exact": f"no: {reason}" if reason else "yes"}


def versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: installed(name) or "not installed" for name in PACKAGES}


def devices() -> dict[str, str]:
    found = {
        "cpu": f"{platform.machine()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    }
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        found[f"cuda:{i}"] = f"{torch.cuda.get_device_name(i)}, {memory:.0f} GiB"
    return found if len(found) > 1 else found | {"cuda": "none"}
