"""`alea info`: versions, devices, and the backends that work here."""

from __future__ import annotations

import argparse
import json
import platform

import torch

from model.versions import DISTRIBUTION, installed
from samplers import backends

PACKAGES = (DISTRIBUTION, "torch", "triton", "numpy", "safetensors", "sentencepiece", "transformers", "bitsandbytes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    sections = {"versions": versions(), "devices": devices(), "backends": backends()}
    if arguments.json:
        print(json.dumps(sections, indent=2))
        return 0
    for title, rows in sections.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<14} {value}")
    return 0


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
