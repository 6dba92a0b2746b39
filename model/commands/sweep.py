"""`alea sweep`: the diversity experiment over a grid of sampling settings, with its table and pictures."""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from model.commands.arguments import add_model_arguments, load_model, model_settings
from model.commands.output import add_output_argument
from model.commands.terminal import console, progress, tell
from model.study import sweep, sweep_plots
from model.study.sweep import Settings, Spread, Sweep, over_seeds
from samplers.extras import how_to_install

PACKAGES = ("sacrebleu", "matplotlib")
FULL: dict[str, Any] = {
    "temperature": [0.5, 0.8, 1.0, 1.5, 2.0, 10.0],
    "top_p": [0.0, 0.5, 0.8, 0.95, 1.0],
    "top_k": [0],
    "epsilon_cutoff": [0.0],
    "samples": 8,
    "seeds": [0, 1, 2],
    "max_new_tokens": 40,
}
QUICK = FULL | {
    "temperature": [0.5, 1.0, 10.0],
    "top_p": [0.0, 0.9, 1.0],
    "samples": 4,
    "seeds": [0, 1],
    "max_new_tokens": 20,
}
OPTIONS = {  # option: (type, values, help)
    "temperature": (float, "+", "each 0, or in [1e-6, 1e6]"),
    "top-p": (float, "+", "each in [0, 1]; 0 keeps the most probable token alone"),
    "top-k": (int, "+", "each >= 0, 0: off"),
    "epsilon-cutoff": (float, "+", "each in [0, 1), 0: off"),
    "samples": (int, None, "texts a point and seed, 2 or more"),
    "seeds": (int, "+", "the spread is over these"),
    "max-new-tokens": (int, None, "of a text at most"),
}
COLUMNS = {  # of the table: measure: (heading, digits)
    "self_bleu": ("Self-BLEU", 1),
    "distinct_2": ("distinct-2", 2),
    "model_logprob": ("ln p", 2),
    "entropy": ("entropy", 2),
    "kept": ("kept", 0),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{parser.description}. Put MODEL first. The default grid takes about a minute on the built-in model; a second "
        "run with the same settings goes on where the first was stopped. All other sampling settings are off."
    )
    add_model_arguments(parser)
    parser.add_argument("-p", "--prompt", default="Once upon a time", metavar="TEXT", help="default: %(default)s")
    for name, (kind, count, text) in OPTIONS.items():
        names = [f"--{name}", *{"temperature": ["--temp"], "max-new-tokens": ["-n"]}.get(name, [])]
        default = FULL[name.replace("-", "_")]
        shown = " ".join(f"{value:g}" for value in default) if isinstance(default, list) else default
        metavar = "N" if kind is int else "X"
        parser.add_argument(
            *names,
            dest=name.replace("-", "_"),
            type=kind,
            nargs=count,
            metavar=metavar,
            help=f"{text}; default {shown}",
        )
    parser.add_argument("--quick", action="store_true", help="smaller defaults: a rough look in some 10 s")
    add_output_argument(
        parser,
        "-o",
        "--out",
        default=Path("sweep"),
        metavar="FOLDER",
        help="made where missing; default: sweep",
        replaced="the results of another run in it",
    )


def run(arguments: argparse.Namespace) -> int:
    check_packages()
    settings = read_settings(arguments)
    folder = arguments.out
    sweep.check_folder(folder, arguments.overwrite)
    llama, tokenizer = load_model(arguments)
    settings = replace(settings, **model_settings(arguments, llama))
    rows = len(settings.points())
    done = 0
    try:
        with progress("sweep", rows) as on_progress:

            def count(rows_done: int) -> None:
                nonlocal done
                done = rows_done
                on_progress(done)

            result = sweep.run(llama, tokenizer, settings, folder, count, arguments.overwrite)
    except KeyboardInterrupt:
        tell(f"stopped: {done} of {rows} rows are in {folder}; the same command goes on from there")
        return 130
    pictures = sweep_plots.write(result, folder)
    show_table(result)
    names = ", ".join(path.name for path in pictures if path.suffix == ".svg")
    print(f"{folder}: sweep.csv ({rows} rows), texts.jsonl ({len(result.texts)} texts), sweep.json, {names} (and .png)")
    return 0


def check_packages() -> None:
    """Call it before loading. Raises: RuntimeError naming the missing packages and how to get them."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise RuntimeError(f"needs {' and '.join(missing)}: {how_to_install('study')}")


def read_settings(arguments: argparse.Namespace) -> Settings:
    """The given options, then the defaults."""
    defaults = QUICK if arguments.quick else FULL
    chosen = {name: value if (value := getattr(arguments, name)) is not None else defaults[name] for name in defaults}
    return Settings(prompt=arguments.prompt, **chosen)


def show_table(sweep: Sweep) -> None:
    """Mean ± sd over seeds, one line per grid point."""
    s = sweep.settings
    axes = {"temperature": "T", "top_p": "top-p", "top_k": "top-k", "epsilon_cutoff": "ε"}
    shown = [name for name in axes if name in ("temperature", "top_p") or len(getattr(s, name)) > 1]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in [*(axes[name] for name in shown), *(heading for heading, _ in COLUMNS.values())]:
        table.add_column(heading, justify="right", overflow="fold")
    last = None
    for point, values in over_seeds(sweep.rows).items():
        if last is not None and last != point.temperature:
            table.add_section()
        last = point.temperature
        settings = [f"{getattr(point, name):g}" for name in shown]
        table.add_row(*settings, *(in_words(values[name], digits) for name, (_, digits) in COLUMNS.items()))
    out = console()
    out.print(table)
    spread = f"Mean ± sd over seeds {', '.join(map(str, s.seeds))}" if len(s.seeds) > 1 else f"Seed {s.seeds[0]}"
    out.print(f"{spread}; {s.samples} texts a seed; ln p (the model's own) and entropy in nats a token", soft_wrap=True)


def in_words(value: Spread, digits: int) -> str:
    average = f"{value.mean:.{digits}f}".replace("-", "−")
    return average if value.sd is None else f"{average} ± {value.sd:.{digits}f}"
