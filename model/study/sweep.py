"""The diversity experiment: texts drawn at every point of a grid of settings, measured, and kept where it can go on.

A folder holds `sweep.json` (what was asked for, and the greedy text), `sweep.csv` (a row a point and seed),
`texts.jsonl` (a line a text) and the pictures. Rows are appended in the grid's order, so what is there is always the
beginning of the experiment, and a second run goes on behind it.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from itertools import product
from pathlib import Path
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
Told = Callable[[int], None]  # is told how many rows there are
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
ADVICE = "give another --out, or --overwrite to begin anew"


class Point(NamedTuple):
    """Where on the grid, and which seed."""

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
    """What a sweep is asked for; two runs with equal ones measure the same.

    Args:
        model: its name, then what changes it and what it runs with; they are compared, not used.
        temperature, top_p, top_k, epsilon_cutoff: the grid, each in SamplingParams' range.
        seeds: integers; the same texts' random numbers at every point, so that points differ by their settings alone.
        samples: texts a point and seed, 2 or more.
        max_new_tokens: of a text at most; fewer where it ends itself.
    Raises: ValueError or TypeError naming the setting, what it accepts and what it got.

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
            object.__setattr__(self, name, different(name, values))
        object.__setattr__(self, "seeds", different("seeds", [integer("seeds", seed) for seed in self.seeds]))
        integer("samples", self.samples, 2)
        integer("max_new_tokens", self.max_new_tokens, 1)

    def points(self) -> list[Point]:
        """Every point of the grid with every seed, in the order of the rows."""
        axes = product(self.top_k, self.epsilon_cutoff, self.temperature, self.top_p, self.seeds)
        return [Point(t, p, k, epsilon, seed) for k, epsilon, t, p, seed in axes]  # the innermost loop last


def different(name: str, values: Sequence[Any]) -> tuple[Any, ...]:
    if not values:
        raise ValueError(f"{name} must hold at least one value, got none")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{name} must hold different values, got {value!r} {values.count(value)} times")
    return tuple(values)


@dataclass(frozen=True)
class Sweep:
    """What a folder holds: the settings, the greedy text's record, a row a point and seed, a record a text."""

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
    told: Told = lambda done: None,
    overwrite: bool = False,
) -> Sweep:
    """Measure what the folder lacks, row by row; each is on disk before the next begins.

    Args:
        settings: the grid; folder: made where there is none, gone on with where it is of the same settings.
        told: called with the number of rows there, at first and after each.
        overwrite: begin anew in a folder that is of other settings, or holds what no sweep wrote.
    Returns: all that the folder holds at the end.
    Raises: ValueError where the folder is of other settings or holds what no sweep wrote, or where generate refuses
        the prompt; BlockingIOError where another process measures into the folder.
    Source: Self-BLEU and likelihood of sampled texts as in Holtzman et al. 2020 (the nucleus).
    """
    check_folder(folder, overwrite)
    greedy = greedy_text(model, tokenizer, settings)
    folder.mkdir(parents=True, exist_ok=True)
    with files.Lines(folder / "sweep.csv") as rows, files.Lines(folder / "texts.jsonl") as texts:
        done = go_on(folder, rows, texts, settings, greedy, overwrite)
        told(done)
        for number, point in enumerate(settings.points()[done:], done + 1):
            add(rows, texts, *measure(model, tokenizer, settings, point))
            told(number)
    return load(folder)


def greedy_text(model: Llama, tokenizer: Tokenizer, settings: Settings) -> dict[str, Any]:
    """The most probable token at every step: what sampled texts are compared with, and what tells models apart."""
    generation = draw(model, tokenizer, settings, SamplingParams(temperature=0.0), 0, 1)[0]
    return {"text": generation.text, "ids": generation.ids, "total_logprob": rounded(sum(generation.model_logprobs))}


def draw(
    model: Llama, tokenizer: Tokenizer, settings: Settings, params: SamplingParams, seed: int, count: int
) -> list[Generation]:
    given = {field.name: getattr(params, field.name) for field in fields(params)} | {"logit_bias": {}}
    length = settings.max_new_tokens
    return generate(
        model,
        tokenizer,
        settings.prompt,
        max_new_tokens=length,
        do_sample=True,
        num_return_sequences=count,
        seed=seed,
        **given,
    )[0]


def measure(model: Llama, tokenizer: Tokenizer, settings: Settings, point: Point) -> tuple[Row, list[dict[str, Any]]]:
    """Draw a point's texts; returns its row and their records."""
    generations = draw(model, tokenizer, settings, point.params, point.seed, settings.samples)
    prompt = tokenizer.encode(settings.prompt)
    steps = [final_distributions(model, prompt, generation.ids, point.params) for generation in generations]
    texts = [generation.text for generation in generations]
    totals = [sum(generation.model_logprobs) for generation in generations]
    row = point._asdict() | {
        "self_bleu": self_bleu(texts),
        **{f"distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "model_logprob": mean(value for generation in generations for value in generation.model_logprobs),
        "logprob": mean(value for generation in generations for value in generation.logprobs),
        "entropy": mean(value for entropies, _ in steps for value in entropies),
        "kept": mean(value for _, kept in steps for value in kept),
        "total_logprob": mean(totals),
        "tokens": sum(len(generation.ids) for generation in generations),
    }
    records = [
        point._asdict()
        | {"number": number, "total_logprob": rounded(total), "tokens": len(generation.ids)}
        | {"finish_reason": generation.finish_reason, "text": generation.text}
        for number, (generation, total) in enumerate(zip(generations, totals, strict=True))
    ]
    return row, records


@torch.inference_mode()
def final_distributions(
    model: Llama, prompt: list[int], ids: list[int], params: SamplingParams
) -> tuple[list[float], list[int]]:
    """Entropy of the distribution that each id was drawn from, and how many tokens it kept, from one more pass.

    generate does not return them; the pass reads the whole text at once, its draws are thrown away.
    """
    seen = torch.tensor([prompt + ids[:-1]], device=model.device)
    logits = model.logits(model.hidden(seen)[0, len(prompt) - 1 :])  # [len(ids), V]
    out = samplers.sample(logits, params, seed=0, details=True)
    return out.entropy.tolist(), out.kept.tolist()


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def rounded(value: float) -> float:
    return round(value, 6)


# The folder.


def check_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse, before anything is loaded, what is no sweep's. Raises: ValueError naming it."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out must be a folder or a new name, got the file {folder}")
    if overwrite or (folder / "sweep.json").exists():
        return
    for path in (folder / "sweep.csv", folder / "texts.jsonl", *pictures(folder)):
        if path.exists() and path.stat().st_size:
            raise ValueError(f"{folder}: must be new or hold a sweep, got {path.name} without a sweep.json: {ADVICE}")


def pictures(folder: Path) -> list[Path]:
    return [folder / f"{name}.{kind}" for name in PICTURES for kind in ("svg", "png")]


def go_on(
    folder: Path, rows: files.Lines, texts: files.Lines, settings: Settings, greedy: Mapping[str, Any], overwrite: bool
) -> int:
    """Cut what is there to its whole rows, or begin anew; returns how many rows there are.

    Raises: ValueError where it is of other settings, of another model, or what no sweep wrote.
    """
    wanted = as_json(settings)
    try:
        check_same(folder / "sweep.json", wanted, greedy)
        return cut(folder, rows, texts, settings)
    except FileNotFoundError:
        pass
    except ValueError:
        if not overwrite:
            raise
    for grown in (rows, texts):
        grown.keep([])
    for picture in pictures(folder):
        picture.unlink(missing_ok=True)
    text = json.dumps({"settings": wanted, "greedy": greedy, "columns": MEASURES}, ensure_ascii=False, indent=2)
    files.replace(folder / "sweep.json", text + "\n")
    rows.add([HEADER])
    return 0


def cut(folder: Path, rows: files.Lines, texts: files.Lines, settings: Settings) -> int:
    """Leave the rows whose texts are all there; returns how many."""
    lines, records = rows.read(), texts.read()
    there = below_header(folder, lines)
    done = min(len(there), len(records) // settings.samples)  # a row's texts are written before it
    parsed(folder, settings, there[:done])
    rows.keep(lines[: 1 + done])
    texts.keep(records[: done * settings.samples])
    if not lines:
        rows.add([HEADER])
    return done


def as_json(settings: Settings) -> dict[str, Any]:
    """The settings as sweep.json gives them back, with the version that Self-BLEU hangs on."""
    bleu()  # or its error
    return json.loads(json.dumps(asdict(settings) | {"sacrebleu": version("sacrebleu")}))


def check_same(path: Path, wanted: Mapping[str, Any], greedy: Mapping[str, Any]) -> None:
    """Raises: ValueError where another sweep is there already; rows of two would not compare."""
    there = read_json(path)
    changes = files.differences(there["settings"], wanted)
    if not changes and there["greedy"]["ids"] != greedy["ids"]:
        changes = "its model wrote another greedy text"
    if changes:
        raise ValueError(f"{path}: of another sweep: {changes}: {ADVICE}")


def read_json(path: Path) -> dict[str, Any]:
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        _ = there["settings"]["samples"], there["greedy"]["ids"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: must be written by alea sweep, got something else: {ADVICE}") from None
    return there


def below_header(folder: Path, lines: Sequence[str]) -> list[str]:
    """The rows of sweep.csv."""
    header, *rows = lines or [HEADER]
    if header != HEADER:
        raise ValueError(f"{folder / 'sweep.csv'} line 1: must be {HEADER}, got {header!r}")
    return rows


def add(rows: files.Lines, texts: files.Lines, row: Row, records: Sequence[Mapping[str, Any]]) -> None:
    """The texts first: a row that is there has its texts."""
    texts.add(json.dumps(record, ensure_ascii=False) for record in records)
    values = [row[name] if name in KEYS or name in INTEGERS else f"{row[name]:.6g}" for name in HEADER.split(",")]
    rows.add([",".join(map(str, values))])


def parsed(folder: Path, settings: Settings, lines: Sequence[str]) -> list[Row]:
    """Rows of sweep.csv; ValueError for one that is not what stands there on the grid."""
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
            where = ", ".join(f"{name} {value}" for name, value in point._asdict().items())
            raise ValueError(f"{folder / 'sweep.csv'} line {number}: must be the row of {where}, got {line!r}")
        rows.append(row)
    return rows


def load(folder: Path) -> Sweep:
    """What a folder holds, from its files alone.

    Raises: ValueError where they are no sweep's; FileNotFoundError where there are none.
    """
    there = read_json(folder / "sweep.json")
    names = {field.name for field in fields(Settings)}
    kept: dict[str, Any] = {
        n: tuple(v) if isinstance(v, list) else v for n, v in there["settings"].items() if n in names
    }
    settings = Settings(**kept)
    rows = parsed(folder, settings, below_header(folder, files.whole_lines(folder / "sweep.csv")))
    texts = [json.loads(line) for line in files.whole_lines(folder / "texts.jsonl")]
    return Sweep(settings, there["greedy"], rows, texts)


# Over the seeds.


class Spread(NamedTuple):
    """Mean and standard deviation over seeds; sd is None where there is one seed."""

    mean: float
    sd: float | None


def over_seeds(rows: Iterable[Row]) -> dict[Point, dict[str, Spread]]:
    """Each measure's mean ± sd (n - 1) at each point, whose seed is written as 0.

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
    return Spread(mean(values), statistics.stdev(values) if len(values) > 1 else None)
