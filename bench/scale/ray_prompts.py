"""Runs `docs/examples/ray_prompts.py` whole, killed and in other blocks; every file must be that of `alea generate`.

    python -m bench.scale.ray_prompts --save

docs/scale.md says how to make an environment with Ray and vLLM for it. Five runs on two CPU cores take nine minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import runner
from bench.records import Record

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/ray_prompts.py"
SEED = 7
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB of each worker
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES": "200000000",
}


class Run(NamedTuple):
    """One start of the example, and what is killed after a third of the lines: "" nothing, "engine" one worker's."""

    workers: int
    block: int
    kill: str = ""


TRIALS = {
    "one worker": [Run(1, 25)],
    "two workers": [Run(2, 25)],
    "other blocks": [Run(2, 64)],
    "one engine killed": [Run(2, 25, "engine")],
    "all killed, then resumed": [Run(2, 25, "all"), Run(1, 40)],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs="+", default=list(TRIALS), choices=TRIALS, metavar="NAME")
    parser.add_argument("--save", action="store_true", help="append the records to bench/results/ray.jsonl")
    arguments = parser.parse_args()

    def show(record: Record) -> None:
        print(json.dumps(record), flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = expected_lines(folder)
        measure = partial(tried, folder=folder, expected=expected)
        found = runner.collect("ray", arguments.trials, measure, arguments.save, show)
    whole = [record["equal"] == record["lines"] == record["prompts"] for record in found]
    return 0 if all(whole) and len(whole) == len(arguments.trials) else 1


def prompts() -> list[str]:
    """400 beginnings of a tale."""
    places = ("Once upon a time", "Long ago", "In a far country", "Beyond the sea", "In the deep wood")
    heroes = ("king", "queen", "fisherman", "witch", "miller", "soldier", "princess", "tailor", "giant", "fox")
    ends = ("who", "and", "with", "that", ", and one day", "who had three", "who never", "whose")
    return [f"{place} there lived a {hero} {end}" for place in places for hero in heroes for end in ends]


def expected_lines(folder: Path) -> list[Record]:
    """The lines that `alea generate` writes for the prompts, which lie in the folder afterwards."""
    (folder / "prompts.txt").write_text("\n".join(prompts()))
    sampling = runpy.run_path(str(EXAMPLE))["SAMPLING"]
    options = {"file": folder / "prompts.txt", "out": folder / "expected.jsonl", "seed": SEED}
    options |= {"max_new_tokens" if name == "max_tokens" else name: value for name, value in sampling.items()}
    subprocess.run(command("-m", "model.cli", "generate", **options), check=True, env=os.environ | ENVIRONMENT)
    return lines_of(folder / "expected.jsonl")


def tried(name: str, folder: Path, expected: list[Record]) -> Record:
    """The figures of a trial: its runs, and how many of the joined lines are as expected."""
    out = folder / name
    runs = [figures(run, folder / "prompts.txt", out) for run in TRIALS[name]]
    lines = lines_of(out / "texts.jsonl") if (out / "texts.jsonl").exists() else []
    keys = ("prompt_number", "prompt", "ids", "text", "seed", "stream")
    equal = sum(all(line[key] == other[key] for key in keys) for line, other in zip(lines, expected, strict=False))
    counts = {"prompts": len(expected), "lines": len(lines), "equal": equal}
    return {"trial": name, **counts, "tokens": sum(len(line["ids"]) for line in lines), "runs": runs}


def figures(run: Run, file: Path, out: Path) -> Record:
    """Start the example, kill what the run names, and wait for its end."""
    before, began, killed = lines_in_parts(out), time.perf_counter(), 0
    words = command(EXAMPLE, prompts=file, out=out, workers=run.workers, block=run.block)
    with out.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen(words, cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=log, stderr=log)
        while run.kill and process.poll() is None and not killed:
            time.sleep(0.05)
            if lines_in_parts(out) >= len(prompts()) / 3:
                killed = kill(process.pid, run.kill)
        status = process.wait()
    seconds = round(time.perf_counter() - began, 1)
    drawn = lines_in_parts(out) - before
    return {**run._asdict(), "processes_killed": killed, "status": status, "seconds": seconds, "drawn": drawn}


def kill(pid: int, what: str) -> int:
    """SIGKILL, after which nothing is cleaned up: to all that the process started and itself, or to one vLLM engine."""
    import psutil  # comes with vLLM

    driver = psutil.Process(pid)
    family = [driver, *driver.children(recursive=True)]
    victims = [child for child in family if "EngineCore" in child.name()][:1] if what == "engine" else family
    for victim in victims:
        victim.kill()
    return len(victims)


def command(*words: str | Path, **options: object) -> list[str]:
    """
    >>> command("-m", "model.cli", top_p=0.9)[1:]
    ['-m', 'model.cli', '--top-p', '0.9']
    """
    given = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    return [sys.executable, *map(str, [*words, *given])]


def lines_in_parts(out: Path) -> int:
    """Doubled lines count twice."""
    return sum(len(lines_of(part)) for part in out.glob("part-*.jsonl"))


def lines_of(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    sys.exit(main())
