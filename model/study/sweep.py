"""The diversity experiment: texts drawn and measured at every point of a grid of settings. It can be resumed.

A folder holds `sweep.json` (the settings and the greedy text), `sweep.csv` (a row per point and seed), `texts.jsonl`
(a line per text) and the plots. Rows are appended in the grid's order. The folder therefore always holds the beginning
of the experiment, and a second run appends the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch

import samplers
from model import files
from model.decoding.generation import generate
from model.decoding.writer import Generation
from model.llama import Llama
from model.study.diversity import bleu, distinct_n, self_bleu
from model.tokenizer import Tokenizer
from samplers import SamplingParams
from samplers.params import integer

Row = dict[str, float]  # a row of sweep.csv: KEYS and MEASURES
GRID = ("temperature", "top_p", "top_k", "epsilon_cutoff")
KEYS = (*GRID, "seed")
INTEGERS = ("top_k", "seed", "tokens")
MEASURES = {
    "self_bleu": "mean over texts of BLEU against all others, 0 .. 100",
    "distinct_1": "distinct words over words",
    "distinct_2": "the same of word pairs",
    "distinct_3": "the same of word triples",
    "model_logprob": "mean ln p of a token under softmax of the model's logits",
    "logprob": "mean ln p of a token in the distribution it was drawn from",
    "entropy": "mean entropy of that distribution, nats",
    "kept": "mean number of tokens that it leaves",
    "total_logprob": "mean over texts of the sum of model_logprob",
    "tokens": "number of tokens of all texts",
}
HEADER = ",".join([*KEYS, *MEASURES])
PICTURES = ("self_bleu", "quality_diversity", "total_logprob")  # each an .svg and a .png
ADVICE = "give another --out, or --overwrite to start again"


class Point(NamedTuple):
    """A point of the grid, and a seed."""

    temperature: float
    top_p: float
    top_k: int
    epsilon_cutoff: float
    seed: int

    @property
    def params(self) -> SamplingParams:
        """These four settings and no other, whatever the model's generation_config says."""
        return SamplingParams(self.temperature, self.top_k, self.top_p, epsilon_cutoff=self.epsilon_cutoff)


@dataclass(frozen=True)
class Settings:
    """The settings of a sweep. Two runs with equal settings measure the same.

    Args:
        model: its name; adapter, quantize, double_quant, device, dtype, weights: how it was loaded. All seven are only
            compared.
        temperature, top_p, top_k, epsilon_cutoff: the grid, each in SamplingParams' range.
        seeds: integers. Every point uses the same random numbers: points differ only by their settings.
        samples: texts per point and seed, 2 or more.
        max_new_tokens: the longest a text can get; a text with an EOS is shorter.
    Raises: ValueError or TypeError naming the setting, the accepted range and the value.

    >>> grid = Settings(temperature=(0.5, 1), top_p=(0.9,), seeds=(0, 1))
    >>> [(point.temperature, point.seed) for point in grid.points()]
    [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    """

    model: str = "built-in"
    adapter: str | None = None
    quantize: str | None = None
    double_quant: bool = False
    device: str = "cpu"
    dtype: str = "float32"
    weights: str = "as stored"
    prompt: str = "Once upon a time"
    temperature: tuple[float, ...] = (1.0,)
    top_p: tuple[float, ...] = (1.0,)
    top_k: tuple[int, ...] = (0,)
    epsilon_cutoff: tuple[float, ...] = (0.0,)
    seeds: tuple[int, ...] = (0,)
    samples: int = 8
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        for name in GRID:
            values = [getattr(SamplingParams(**{name: value}), name) for value in getattr(self, name)]
            object.__setattr__(self, name, distinct(name, values))
        object.__setattr__(self, "seeds", distinct("seeds", [integer("seeds", seed) for seed in self.seeds]))
        integer("samples", self.samples, 2)
        integer("max_new_tokens", self.max_new_tokens, 1)

    def points(self) -> list[Point]:
        """Every point of the grid with every seed, in the order of the rows."""
        axes = product(self.top_k, self.epsilon_cutoff, self.temperature, self.top_p, self.seeds)
        return [Point(t, p, k, epsilon, seed) for k, epsilon, t, p, seed in axes]


def distinct(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        raise ValueError(f"{name} must hold at least one value, got none")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{name} must hold different values, got {value!r} {values.count(value)} times")
    return tuple(values)


@dataclass(frozen=True)
class Sweep:
    """The content of a folder: the settings, the greedy text's record, a row per point and seed, a record per text."""

    settings: Settings
    greedy: dict[str, Any]
    rows: list[Row]
    texts: list[dict[str, Any]]


# Measuring.


def run(
    model: Llama,
    tokenizer: Tokenizer,
    settings: Settings,
    folder: Path,
    on_progress: Callable[[int], None] = lambda done: None,
    overwrite: bool = False,
) -> Sweep:
    """Measure the missing rows of a folder. Each row is on disk before the next one begins.

    Args:
        settings: the grid. folder: created if it is missing, resumed if it has the same settings.
        on_progress: called with the number of finished rows, once at the start and after each row.
        overwrite: start again in a folder that has other settings or other files.
    Returns: the content of the folder.
    Raises: ValueError if the folder has other settings or files that no sweep wrote, or if generate refuses the
        prompt; BlockingIOError if another process is writing to the folder.
    Source: Self-BLEU and likelihood of sampled texts as in Holtzman et al. 2020 (the nucleus).
    """
    check_folder(folder, overwrite)
    greedy = greedy_text(model, tokenizer, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with files.Lines(folder / "sweep.csv") as rows, files.Lines(folder / "texts.jsonl") as texts:
        done = resume(folder, rows, texts, settings, greedy, overwrite)
        on_progress(done)
        for number, point in enumerate(settings.points()[done:], done + 1):
            append(rows, texts, *measure(model, tokenizer, settings, point))
            on_progress(number)
    return load(folder)


def greedy_text(model: Llama, tokenizer: Tokenizer, settings: Settings) -> dict[str, Any]:
    """The most probable token at every step. Sampled texts are compared with it, and it identifies the model."""
    generation = draw_texts(model, tokenizer, settings, SamplingParams(temperature=0.0), 0, 1)[0]
    return {"text": generation.text, "ids": generation.ids, "total_logprob": round(sum(generation.model_logprobs), 6)}


def draw_texts(
    model: Llama, tokenizer: Tokenizer, settings: Settings, params: SamplingParams, seed: int, count: int
) -> list[Generation]:
    sampling = {field.name: getattr(params, field.name) for field in fields(params)} | {"logit_bias": {}}
    return generate(
        model,
        tokenizer,
        settings.prompt,
        max_new_tokens=settings.max_new_tokens,
        do_sample=True,
        num_return_sequences=count,
        seed=seed,
        **sampling,
    )[0]


def measure(model: Llama, tokenizer: Tokenizer, settings: Settings, point: Point) -> tuple[Row, list[dict[str, Any]]]:
    """Draw the texts of a point and return its row and their records."""
    generations = draw_texts(model, tokenizer, settings, point.params, point.seed, settings.samples)
    prompt = tokenizer.encode(settings.prompt)
    steps = [final_distributions(model, prompt, generation.ids, point.params) for generation in generations]
    texts = [generation.text for generation in generations]
    totals = [sum(generation.model_logprobs) for generation in generations]
    row = point._asdict() | {
        "self_bleu": self_bleu(texts),
        **{f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "model_logprob": fmean(value for generation in generations for value in generation.model_logprobs),
        "logprob": fmean(value for generation in generations for value in generation.logprobs),
        "entropy": fmean(value for entropies, _ in steps for value in entropies),
        "kept": fmean(value for _, kept in steps for value in kept),
        "total_logprob": fmean(totals),
        "tokens": sum(len(generation.ids) for generation in generations),
    }
    records = [
        point._asdict()
        | {"number": number, "total_logprob": round(total, 6), "tokens": len(generation.ids)}
        | {"finish_reason": generation.finish_reason, "text": generation.text}
        for number, (generation, total) in enumerate(zip(generations, totals, strict=True))
    ]
    return row, records


@torch.inference_mode()
def final_distributions(
    model: Llama, prompt: list[int], ids: list[int], params: SamplingParams
) -> tuple[list[float], list[int]]:
    """Entropy of the distribution from which each id was drawn, and the number of tokens that it kept.

    generate does not return them. They come from one more forward pass over the whole text; its draws are discarded.
    """
    inputs = torch.tensor([prompt + ids[:-1]], device=model.device)
    logits = model.logits(model.hidden(inputs)[0, len(prompt) - 1 :])  # [len(ids), V]
    out = samplers.sample(logits, params, seed=0, details=True)
    return out.entropy.tolist(), out.kept.tolist()


# The folder.


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Raises ValueError naming the file if the folder holds files that no sweep wrote."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder or a new name, got the file {folder}")
    if overwrite or (folder / "sweep.json").exists():
        return
    for path in (folder / "sweep.csv", folder / "texts.jsonl", *pictures(folder)):
        if path.exists() and path.stat().st_size:
            raise ValueError(f"{folder}: must be new or hold a sweep, got {path.name} without a sweep.json: {ADVICE}")


def pictures(folder: Path) -> list[Path]:
    return [folder / f"{name}.{kind}" for name in PICTURES for kind in ("svg", "png")]


def resume(
    folder: Path, rows: files.Lines, texts: files.Lines, settings: Settings, greedy: Mapping[str, Any], overwrite: bool
) -> int:
    """Cut the files to complete rows, or start again; returns the number of rows.

    Raises: ValueError if the files have other settings, are from another model, or no sweep wrote them.
    """
    wanted = stored_settings(settings)
    try:
        check_same(folder / "sweep.json", wanted, greedy)
        return keep_complete_rows(folder, rows, texts, settings)
    except FileNotFoundError:
        pass
    except ValueError:
        if not overwrite:
            raise
    for lines in (rows, texts):
        lines.keep([])
    for picture in pictures(folder):
        picture.unlink(missing_ok=True)
    text = json.dumps({"settings": wanted, "greedy": greedy, "columns": MEASURES}, ensure_ascii=False, indent=2)
    files.replace(folder / "sweep.json", text + "\n")
    rows.add([HEADER])
    return 0


def keep_complete_rows(folder: Path, rows: files.Lines, texts: files.Lines, settings: Settings) -> int:
    """Cut off rows and texts that miss the other part; returns the number of rows left."""
    lines, records = rows.read(), texts.read()
    stored = without_header(folder, lines)
    done = min(len(stored), len(records) // settings.samples)  # a row's texts are written before it
    parse_rows(folder, settings, stored[:done])
    rows.keep(lines[: 1 + done])
    texts.keep(records[: done * settings.samples])
    if not lines:
        rows.add([HEADER])
    return done


def stored_settings(settings: Settings) -> dict[str, Any]:
    """The settings as sweep.json returns them, with the version of sacrebleu, on which Self-BLEU depends."""
    bleu()  # raises if sacrebleu is missing
    return json.loads(json.dumps(asdict(settings) | {"sacrebleu": version("sacrebleu")}))


def check_same(path: Path, wanted: Mapping[str, Any], greedy: Mapping[str, Any]) -> None:
    """Raises ValueError if the folder holds another sweep, whose rows would not compare."""
    stored = read_sweep_json(path)
    changes = files.differences(stored["settings"], wanted)
    if not changes and stored["greedy"]["ids"] != greedy["ids"]:
        changes = "its model wrote another greedy text"
    if changes:
        raise ValueError(f"{path}: of another sweep: {changes}: {ADVICE}")


def read_sweep_json(path: Path) -> dict[str, Any]:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        _ = stored["settings"]["samples"], stored["greedy"]["ids"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: must be written by alea sweep, got something else: {ADVICE}") from None
    return stored


def without_header(folder: Path, lines: Sequence[str]) -> list[str]:
    """The rows of sweep.csv."""
    header, *rows = lines or [HEADER]
    if header != HEADER:
        raise ValueError(f"{folder / 'sweep.csv'} line 1: must be {HEADER}, got {header!r}")
    return rows


def append(rows: files.Lines, texts: files.Lines, row: Row, records: Sequence[Mapping[str, Any]]) -> None:
    """The texts first: every row in the file then has its texts."""
    texts.add(json.dumps(record, ensure_ascii=False) for record in records)
    values = [row[name] if name in KEYS or name in INTEGERS else f"{row[name]:.6g}" for name in HEADER.split(",")]
    rows.add([",".join(map(str, values))])


def parse_rows(folder: Path, settings: Settings, lines: Sequence[str]) -> list[Row]:
    """Rows of sweep.csv. Raises ValueError for a row that is not the next one of the grid."""
    rows = []
    for number, (line, point) in enumerate(zip(lines, settings.points(), strict=False), start=2):
        try:
            row: Row = {
                name: int(value) if name in INTEGERS else float(value)
                for name, value in zip(HEADER.split(","), line.split(","), strict=True)
            }
        except ValueError:
            row = {}
        if [row.get(name) for name in KEYS] != list(point):
            expected = ", ".join(f"{name} {value}" for name, value in point._asdict().items())
            raise ValueError(f"{folder / 'sweep.csv'} line {number}: must be the row of {expected}, got {line!r}")
        rows.append(row)
    return rows


def load(folder: Path) -> Sweep:
    """Read a folder.

    Raises: ValueError if no sweep wrote its files; FileNotFoundError if they are missing.
    """
    stored = read_sweep_json(folder / "sweep.json")
    names = {field.name for field in fields(Settings)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in stored["settings"].items()
        if name in names
    }
    settings = Settings(**values)
    rows = parse_rows(folder, settings, without_header(folder, files.whole_lines(folder / "sweep.csv")))
    texts = [json.loads(line) for line in files.whole_lines(folder / "texts.jsonl")]
    return Sweep(settings, stored["greedy"], rows, texts)


# Over the seeds.


class Spread(NamedTuple):
    """Mean and standard deviation over seeds; sd is None for a single seed."""

    mean: float
    sd: float | None


def over_seeds(rows: Iterable[Row]) -> dict[Point, dict[str, Spread]]:
    """Mean ± sd (n - 1) of each measure at each point. The points have seed 0.

    >>> row = dict(temperature=1.0, top_p=1.0, top_k=0, epsilon_cutoff=0.0) | dict.fromkeys(MEASURES, 0.0)
    >>> rows = [row | {"seed": seed, "self_bleu": bleu} for seed, bleu in enumerate((10.0, 12.0, 14.0))]
    >>> [measures["self_bleu"] for measures in over_seeds(rows).values()]
    [Spread(mean=12.0, sd=2.0)]
    """
    groups: dict[Point, list[Row]] = {}
    for row in rows:
        point = Point(row["temperature"], row["top_p"], int(row["top_k"]), row["epsilon_cutoff"], 0)
        groups.setdefault(point, []).append(row)
    return {point: {name: spread([row[name] for row in group]) for name in MEASURES} for point, group in groups.items()}


def spread(values: Sequence[float]) -> Spread:
    return Spread(fmean(values), stdev(values) if len(values) > 1 else None)
