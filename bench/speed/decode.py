"""`alea bench decode`: tokens a second of `generate`, ours and the peers', on the same weights."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Collection, Mapping
from functools import partial
from itertools import product
from pathlib import Path

import torch

from bench import runner
from bench.loading.checkpoints import SHAPES, Checkpoints
from bench.peers.base import Unavailable
from bench.records import Record, quantiles, three_digits
from bench.speed import goals
from bench.speed.decoders import PEERS, WINDOW, Alea, Decoder, Job
from bench.speed.timing import interleaved
from model import Tokenizer
from model.config import BUILT_IN, LlamaConfig

Case = tuple[str, str, int]  # shape, type of the stored weights, batch

PROMPT = "Once upon a time there was a king who had a daughter"
TRAINED = {"temperature": 0.8, "top_p": 0.95}
RANDOM = {"temperature": 0.2, "top_p": 0.95}  # random weights give flat rows; so they are as peaked as trained ones'
WEIGHTS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# The greatest difference from our logits, as a part of the largest. llama.cpp attends in float16: 3e-3 was seen. With
# weights in bfloat16 it and transformers round the activations as well: 0.008 and 0.02. Otherwise only the order of
# float32 sums differs: 2e-6.
TOLERANCE = {"torch": 1e-4, "transformers": 1e-4, "llama.cpp": 5e-3}
TOLERANCES = {"float32": TOLERANCE, "bfloat16": TOLERANCE | {"transformers": 0.1, "llama.cpp": 0.05}}
CAPTION = (
    "Tokens a second of generate, {new_tokens} tokens a sequence, with temperature and top-p. torch: our generate with "
    "torch's forward pass. With weights in bfloat16, alea and torch compute in float32; transformers and llama.cpp "
    "round activations to bfloat16. Prefill: until the logits after {prefill_tokens} tokens, by the same four"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a Llama folder, in place of --shape")
    shapes = f"some of {', '.join(SHAPES)}; default storyteller, the others have random weights"
    parser.add_argument("--shape", nargs="+", default=["storyteller"], metavar="NAME", help=shapes)
    weights = f"how matrices are stored; default {' '.join(WEIGHTS)}"
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), metavar="TYPE", help=weights)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32], metavar="B", help="default 1 8 32")
    parser.add_argument("-n", "--new-tokens", type=int, default=128, metavar="N", help="per sequence; default 128")
    peers = f"default {' '.join(PEERS)}"
    parser.add_argument("--peers", nargs="+", default=list(PEERS), metavar="NAME", help=peers)
    runner.add_options(parser, "decode", "three rounds of 32 tokens, the first weights and batch size", rounds=9)
    parser.add_argument("--check", action="store_true", help="say which goals hold; exit 1 if one does not")


def run(arguments: argparse.Namespace) -> int:
    runner.check_options(arguments, new_tokens=1)
    for option, known in (("shape", SHAPES), ("weights", WEIGHTS), ("peers", PEERS)):
        runner.check_names(option, getattr(arguments, option), known)
    if min(arguments.batch) < 1:
        raise ValueError(f"--batch must be >= 1, got {min(arguments.batch)}")
    if arguments.quick:
        arguments.rounds, arguments.new_tokens = 3, 32
        arguments.weights, arguments.batch = arguments.weights[:1], arguments.batch[:1]
    torch.set_num_threads(arguments.threads)
    shapes = [Path(arguments.model).name] if arguments.model else arguments.shape
    with tempfile.TemporaryDirectory() as home:
        measure = partial(measured, arguments=arguments, home=Path(home))
        cases = product(shapes, arguments.weights, arguments.batch)
        records = runner.collect("decode", cases, measure, arguments.save)
    if records:
        caption = f"{CAPTION.format_map(records[0])}."
        runner.print_table("decode, tokens a second", table(records), caption, left=2)
    return goals.check("decode", records) if arguments.check else 0


def measured(case: Case, arguments: argparse.Namespace, home: Path) -> Record:
    shape, weights, batch = case
    folder = Path(arguments.model) if arguments.model else folder_of(shape, home)
    job = job_of(folder, WEIGHTS[weights], batch, arguments.new_tokens)
    peers, skipped = loaded(job, arguments.peers)
    ids, ours = random_ids(folder, WINDOW), Alea(job)
    failed = verify(ours, peers, ids, TOLERANCES[weights])
    timed = {"alea": ours} | {name: peer for name, peer in peers.items() if name not in failed}
    seconds = interleaved({name: decoder.generate for name, decoder in timed.items()}, arguments.rounds)
    alone = {name: partial(decoder.logits, ids) for name, decoder in timed.items() if batch == 1}
    prefill = interleaved(alone, arguments.rounds)
    return {
        **dict(shape=shape, weights=weights, batch=batch, threads=torch.get_num_threads()),
        **dict(new_tokens=job.new_tokens, rounds=arguments.rounds, sampling=job.sampling),
        "tokens_a_second": {name: quantiles([batch * job.new_tokens / s for s in x]) for name, x in seconds.items()},
        "prefill_tokens": len(ids),
        "prefill_milliseconds": {name: quantiles([1000 * s for s in x]) for name, x in prefill.items()},
        "skipped": skipped,
        "failed": failed,
    }


def folder_of(shape: str, home: Path) -> Path:
    return BUILT_IN if shape == "storyteller" else Checkpoints(home, "float32").folder(shape)


def job_of(folder: Path, weights: torch.dtype, batch: int, new_tokens: int) -> Job:
    """The same prompt in every row. Weights without a tokenizer are taken to be random."""
    if not (folder / "tokenizer.model").exists():
        return Job(folder, weights, Tokenizer.from_pretrained(), [random_ids(folder, 13)] * batch, new_tokens, RANDOM)
    tokenizer = Tokenizer.from_pretrained(folder)
    return Job(folder, weights, tokenizer, [tokenizer.encode(PROMPT)] * batch, new_tokens, TRAINED)


def random_ids(folder: Path, count: int) -> list[int]:
    """At most as many as the model's window holds."""
    config = LlamaConfig.from_pretrained(folder)
    shape = (min(count, config.max_position_embeddings),)
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(0)).tolist()


def loaded(job: Job, names: Collection[str]) -> tuple[dict[str, Decoder], dict[str, str]]:
    """The peers that can run here; for the others, the reason why not."""
    peers, skipped = dict[str, Decoder](), dict[str, str]()
    for name, peer in PEERS.items():
        try:
            if name not in names:
                raise Unavailable("not asked for")
            peers[name] = peer(job)
        except Unavailable as reason:
            skipped[name] = str(reason)
    return peers, skipped


def verify(ours: Alea, peers: Mapping[str, Decoder], ids: list[int], tolerance: Mapping[str, float]) -> dict[str, str]:
    """The faults of peers, by name; these are not to be timed.

    Raises: RuntimeError if all of them differ from ours.
    """
    expected, job, failed = ours.logits(ids), ours.job, dict[str, str]()
    for name, peer in peers.items():
        difference = abs(peer.logits(ids) - expected).max() / abs(expected).max()
        if not difference <= tolerance[name]:
            failed[name] = f"its logits differ from ours by {difference:.1e} of the largest"
        elif [len(row) for row in peer.generate()] != [job.new_tokens] * len(job.prompts):
            failed[name] = f"it does not give {job.new_tokens} tokens for each prompt"
    if failed and failed.keys() == peers.keys():
        raise RuntimeError(f"alea differs from {', '.join(failed)}; nothing was measured")
    return failed


def table(records: list[Record]) -> runner.Rows:
    """A line a case: medians."""
    names, lines = ["alea", *PEERS], []
    for record in records:
        speed = {name: q["p50"] for name, q in record["tokens_a_second"].items()}
        prefill = {name: three_digits(q["p50"]) for name, q in record["prefill_milliseconds"].items()}
        cells = [three_digits(speed[name]) if name in speed else "–" for name in names]
        ratio = f"{speed['alea'] / speed['llama.cpp']:.2f} ×" if "llama.cpp" in speed else "–"
        reads = " / ".join(prefill.get(name, "–") for name in names) if prefill else ""
        lines.append([record["shape"], record["weights"], str(record["batch"]), *cells, ratio, reads])
    return ["shape", "weights", "batch", *names, "alea / llama.cpp", "prefill, ms"], lines
