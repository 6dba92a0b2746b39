"""`alea bench decode`: our `generate` and transformers', with the same weights and sampling, in the same run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import runner
from bench.records import Record, quantiles
from bench.speed.timing import interleaved
from model import Llama, Tokenizer, generate
from model.config import BUILT_IN

SAMPLING = {"temperature": 0.8, "top_p": 0.95}
PROMPT = "Once upon a time there was a king who had a daughter"
GREEDY_TOKENS = 32  # compared token for token before anything is timed

Generate = Callable[..., list[list[int]]]  # (new tokens, **sampling; none: greedy) -> ids by row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a Llama folder; default the built-in storyteller")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="B", help="default 1 8")
    parser.add_argument("-n", "--new-tokens", type=int, default=128, metavar="N", help="per sequence; default 128")
    runner.add_options(parser, "decode", "three rounds of 32 tokens", rounds=9, threads=None)


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments, new_tokens=1)
    if min(arguments.batch) < 1:
        raise ValueError(f"--batch must be >= 1, got {min(arguments.batch)}")
    if arguments.quick:
        arguments.rounds, arguments.new_tokens = 3, 32
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder = Path(arguments.model) if arguments.model else BUILT_IN
    measure = partial(measured, folder=folder, new_tokens=arguments.new_tokens, rounds=arguments.rounds)
    records = runner.collect("decode", arguments.batch, measure, arguments.save)
    if records:
        runner.print_table("decode, tokens a second (median, p20 to p80)", table(records))
    return 0


def measured(batch: int, folder: Path, new_tokens: int, rounds: int) -> Record:
    peers, skipped = {"alea": ours(folder, batch)}, {}
    try:
        peers["transformers"] = theirs(folder, batch)
    except ImportError as error:
        skipped["transformers"] = str(error)
    check(peers)
    calls = {name: partial(run, new_tokens, **SAMPLING) for name, run in peers.items()}
    tokens, seconds = batch * new_tokens, interleaved(calls, rounds)
    return {
        "model": "storyteller" if folder == BUILT_IN else folder.name,
        "batch": batch,
        "new_tokens": new_tokens,
        "rounds": rounds,
        "sampling": SAMPLING,
        "tokens_a_second": {name: quantiles([tokens / s for s in times]) for name, times in seconds.items()},
        "skipped": skipped,
    }


def ours(folder: Path, batch: int) -> Generate:
    llama, tokenizer = Llama.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    prompts = [tokenizer.encode(PROMPT)] * batch
    call = partial(generate, llama, tokenizer, prompts, eos_token_id=(), seed=0, model_logprobs=False)

    def run(new_tokens: int, **sampling: Any) -> list[list[int]]:
        rows = call(max_new_tokens=new_tokens, do_sample=bool(sampling), **sampling)
        return [row[0].ids for row in rows]

    return run


def theirs(folder: Path, batch: int) -> Generate:
    from transformers import GenerationConfig, LlamaForCausalLM

    llama = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    llama.generation_config = GenerationConfig()  # no EOS: every sequence runs to its full length
    ids = torch.tensor([Tokenizer.from_pretrained(folder).encode(PROMPT)] * batch)
    call = partial(llama.generate, ids, attention_mask=torch.ones_like(ids), pad_token_id=0)

    def run(new_tokens: int, **sampling: float) -> list[list[int]]:
        more = dict(top_k=0, **sampling) if sampling else {}
        out = call(max_new_tokens=new_tokens, do_sample=bool(sampling), **more)
        return out[:, ids.shape[1] :].tolist()

    return run


def check(peers: dict[str, Generate]) -> None:
    """All must agree on the greedy continuation, or nothing is timed."""
    texts = {name: run(GREEDY_TOKENS) for name, run in peers.items()}
    for name, rows in texts.items():
        if rows != texts["alea"]:
            raise RuntimeError(f"{name} and alea differ in their greedy continuation; nothing was measured")


def table(records: list[Record]) -> runner.Rows:
    """A line a batch size: medians, p20 to p80."""
    names, lines = list(records[0]["tokens_a_second"]), []
    for record in records:
        speed = record["tokens_a_second"]
        cells = [f"{q['p50']:,.0f} ({q['p20']:,.0f} to {q['p80']:,.0f})" for q in speed.values()]
        ratios = [f"{speed['alea']['p50'] / speed[name]['p50']:.2f} ×" for name in names[1:]]
        lines.append([str(record["batch"]), *cells, *ratios])
    return ["batch", *names, *(f"alea / {name}" for name in names[1:])], lines
