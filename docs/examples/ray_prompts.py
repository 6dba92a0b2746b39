"""Completes a file of prompts with Ray Data and vLLM, on one machine or many; line for line as `alea generate` would.

    python docs/examples/ray_prompts.py --prompts prompts.txt --out texts --workers 2

The prompt of number i is drawn with stream i, so neither the block nor the worker nor a second run changes its text.
Stopped or killed, the same command goes on: what is in a part is not drawn again. Every machine needs ray[llm] and this
package, and OUT must be a folder that all of them see.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from model.commands.prompts import file_prompts
from model.files import replace

SAMPLING = {"temperature": 0.8, "top_k": 50, "top_p": 0.95, "max_tokens": 40}
ENGINE = {"logits_processors": ["samplers.vllm:Draw"], "dtype": "float32", "enforce_eager": True, "max_model_len": 512}


def main() -> None:
    arguments = parsed()
    prompts, out = file_prompts(arguments.prompts), arguments.out
    out.mkdir(exist_ok=True)
    check_settings(out, arguments, prompts)
    done = set(finished(out))
    print(f"{len(done)} of {len(prompts)} texts are in {out}")
    if len(done) < len(prompts):
        complete([{"number": i, "prompt": text} for i, text in enumerate(prompts) if i not in done], arguments)
    join(out, len(prompts))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", required=True, help="a prompt a line, as for alea generate -f")
    parser.add_argument("--out", required=True, type=Path, help="a folder for the parts and for texts.jsonl")
    parser.add_argument("--model", default="model/storyteller")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="copies of the model; default 2")
    parser.add_argument("--gpus", type=int, default=0, help="of each worker; default 0, the CPU")
    parser.add_argument("--block", type=int, default=32, help="prompts in one part; default 32")
    return parser.parse_args()


def complete(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Draw the texts of the rows and write them, a part a block, in whatever order the blocks are ready."""
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    seed, folder = arguments.seed, arguments.out.resolve()

    def request(row: dict[str, Any]) -> dict[str, Any]:
        own = {"seed": seed, "extra_args": {"stream": row["number"]}}
        return {"prompt": row["prompt"], "sampling_params": {**SAMPLING, **own}}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        text = {"prompt": row["prompt"], "ids": row["generated_tokens"], "text": row["generated_text"]}
        return {"prompt_number": row["number"], **text, "seed": seed, "stream": row["number"]}

    def write(block: Any) -> Any:
        write_part(folder, block.to_pylist())
        return block.select(["prompt_number"])

    config = vLLMEngineProcessorConfig(
        model_source=arguments.model,
        engine_kwargs=ENGINE,
        concurrency=(arguments.workers, arguments.workers),
        batch_size=arguments.block,
        log_engine_metrics=False,  # they need ray[llm] as a whole
        placement_group_config={"bundles": [{"CPU": 0.5, "GPU": arguments.gpus}]},
        **dict.fromkeys(("chat_template_stage", "tokenize_stage", "detokenize_stage"), False),  # vLLM has tokens itself
    )
    blocks = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / arguments.block))
    texts = build_processor(config, preprocess=request, postprocess=answer)(blocks)
    texts.map_batches(write, batch_size=None, batch_format="pyarrow").materialize()


def check_settings(folder: Path, arguments: argparse.Namespace, prompts: list[str]) -> None:
    """Refuse a folder with parts of other prompts or settings."""
    digest = hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
    settings = {"prompts_sha256": digest, "model": arguments.model, "seed": arguments.seed, **SAMPLING, **ENGINE}
    path = folder / "settings.json"
    if path.exists() and json.loads(path.read_text()) != settings:
        raise SystemExit(f"--out {folder} holds texts of other prompts or settings: give another folder")
    replace(path, json.dumps(settings))


def write_part(folder: Path, rows: list[dict[str, Any]]) -> None:
    """A file that is whole or not there. Its name is the first number, which no other block has."""
    if rows:
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        replace(folder / f"part-{rows[0]['prompt_number']:09}.jsonl", "".join(lines))


def finished(folder: Path) -> dict[int, str]:
    """The lines of all parts by number. A line that was drawn twice is the same twice."""
    lines = [line for part in folder.glob("part-*.jsonl") for line in part.open(encoding="utf-8")]
    return {json.loads(line)["prompt_number"]: line for line in lines}


def join(folder: Path, prompts: int) -> None:
    """Write texts.jsonl: every line once, in the order of the prompts."""
    lines = finished(folder)
    missing = [number for number in range(prompts) if number not in lines]
    if missing:
        raise SystemExit(f"{len(missing)} texts are missing in {folder}, the first is number {missing[0]}")
    replace(folder / "texts.jsonl", "".join(lines[number] for number in range(prompts)))
    print(f"wrote {folder / 'texts.jsonl'}: {prompts} texts")


if __name__ == "__main__":
    main()
