"""`alea bench decode` end to end at toy size; figures are not judged here, only that they are told truly.

Oracles: peers that are wrong in one known way; of llama.cpp's own loop, our logits after the text that it wrote.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.loading.checkpoints import SHAPES, Checkpoints, generate
from bench.peers.base import Unavailable
from bench.speed import decode, decoders, goals, timing
from model import Tokenizer
from model.cli import main
from tests.bench.command import run, saved

SPEED = {"p20": 1.0, "p50": 2.0, "p80": 3.0}
TINY = ("--rounds", "2", "-n", "4", "--save")


def test_interleaved_rounds():
    calls = []
    functions = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = timing.interleaved(functions, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(s) for name, s in seconds.items()} == {"a": 3, "b": 3}


def test_records_are_lines_of_json(results, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["bench", "decode", "--batch", "1", "2", "--weights", "float32", *TINY]) == 0
    one, two = saved(results, "decode")
    for record in (one, two):
        assert {"benchmark", "sampling", "commit", "dirty", "machine", "versions", "time"} <= record.keys()
        assert (record["shape"], record["weights"], record["threads"]) == ("storyteller", "float32", 1)
        assert {"alea", "transformers"} <= record["tokens_a_second"].keys() and record["failed"] == {}
        assert record["tokens_a_second"].keys() | record["skipped"].keys() == {"alea", *decode.PEERS}
    assert (one["batch"], two["batch"], one["prefill_tokens"]) == (1, 2, 256)
    assert one["prefill_milliseconds"].keys() == one["tokens_a_second"].keys() and two["prefill_milliseconds"] == {}
    printed = capsys.readouterr().out
    assert "alea / llama.cpp" in printed and "the logits after 256 tokens" in " ".join(printed.split())


def test_shapes_of_random_weights_and_folders(results, tmp_path):
    words = ["--batch", "1", "--weights", "bfloat16", "--peers", "transformers", *TINY]
    assert run(decode, "--shape", "tiny", *words) == 0
    assert run(decode, str(generate(tmp_path / "mine", SHAPES["tiny"], "bfloat16")), *words) == 0
    for record, shape in zip(saved(results, "decode"), ("tiny", "mine"), strict=True):
        assert (record["shape"], record["sampling"]) == (shape, decode.RANDOM)
        assert list(record["tokens_a_second"]) == ["alea", "transformers"] and record["failed"] == {}
        assert record["skipped"] == dict.fromkeys(("torch", "llama.cpp"), "not asked for")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "0"], "--batch must be >= 1, got 0"),
        (["--shape", "2T"], "--shape must be among tiny, .*, got '2T'"),
        (["--weights", "int8"], "--weights must be among float32, bfloat16, got 'int8'"),
        (["--peers", "alea"], "--peers must be among torch, transformers, llama.cpp, got 'alea'"),
    ],
)
def test_refused_options(words, message):
    with pytest.raises(ValueError, match=message):
        run(decode, *words)


class Toy:
    """Says that it drew `tokens` tokens, from logits that are `shift` off."""

    def __init__(self, shift: float = 0, tokens: int = 3) -> None:
        self.shift, self.tokens, self.job = shift, tokens, SimpleNamespace(new_tokens=3, prompts=[[1], [1]])

    def generate(self) -> list[list[int]]:
        return [[1] * 3, [1] * self.tokens]

    def logits(self, ids: Any) -> np.ndarray:
        return np.float32([1, -2, 1 + self.shift])


def test_wrong_peers_are_named_and_not_timed():
    peers = {"right": Toy(0.01), "shifted": Toy(0.1), "short": Toy(tokens=2), "nan": Toy(np.nan)}
    failed = decode.verify(Toy(), peers, [1], dict.fromkeys(peers, 0.01))
    assert failed == {
        "shifted": "its logits differ from ours by 5.0e-02 of the largest",
        "short": "it does not give 3 tokens for each prompt",
        "nan": "its logits differ from ours by nan of the largest",
    }


def test_nothing_is_timed_where_all_peers_differ_from_ours():
    peers = {"b": Toy(), "c": Toy()}
    with pytest.raises(RuntimeError, match="alea differs from b, c; nothing was measured"):
        decode.verify(Toy(1), peers, [1], dict.fromkeys(peers, 0.01))


def test_a_peer_that_fails_has_no_times(results, monkeypatch, capsys):
    pytest.importorskip("model._native")
    peers = {"torch": decoders.Torch, "transformers": missing, "llama.cpp": wrong}
    monkeypatch.setattr(decode, "PEERS", peers)
    assert run(decode, "--batch", "1", "--weights", "float32", *TINY) == 0
    (record,) = saved(results, "decode")
    assert list(record["tokens_a_second"]) == list(record["prefill_milliseconds"]) == ["alea", "torch"]
    assert record["skipped"] == {"transformers": "not here"} and list(record["failed"]) == ["llama.cpp"]
    assert "failed: llama.cpp (its logits differ" in capsys.readouterr().out


def missing(job: decoders.Job) -> decoders.Decoder:
    raise Unavailable("not here")


def wrong(job: decoders.Job) -> decoders.Decoder:
    torch_itself = decoders.Torch(job)
    torch_itself.llama.layers[0].mlp.down_proj.weight[0] += 1
    return torch_itself


def test_goals():
    """Speeds above, times below: 3 / 2 of llama.cpp's speed, and half of its time."""
    quantiles = {value: dict.fromkeys(SPEED, value) for value in (2.0, 3.0, 4.0)}
    record = {
        **dict(shape="110M", weights="float32", batch=1, threads=1),
        "tokens_a_second": {"alea": quantiles[3.0], "llama.cpp": quantiles[2.0]},
        "prefill_milliseconds": {"alea": quantiles[2.0], "llama.cpp": quantiles[4.0], "torch": quantiles[2.0]},
    }
    lines = list(goals.verdicts(goals.of_generate("110M", "float32", {1: 1.2, 8: 1.5}, prefill=1.4), [record]))
    assert [line.partition(":")[0] for line in lines] == ["holds", "not measured", "holds", "missed"]
    assert lines[0].endswith("batch 1); got 1.5 in one case") and lines[3].endswith("got 1 in one case")


def test_without_the_extension_torch_is_no_peer(monkeypatch):
    """alea itself runs on torch then."""
    monkeypatch.setattr("model.exact.MISSING", "not built here")
    job = decode.job_of(Path(decode.BUILT_IN), torch.float32, 1, 4)
    peers, skipped = decode.loaded(job, ["torch"])
    assert peers == {} and skipped["torch"] == "it is what alea uses here: not built here"


@pytest.mark.parametrize("weights", decode.WEIGHTS)
def test_llama_cpp_reads_what_it_wrote(tmp_path, weights):
    """After generate its logits are those of the last step, of each sequence."""
    pytest.importorskip("llama_cpp"), pytest.importorskip("gguf")
    folder, tokenizer = Checkpoints(tmp_path, "float32").folder("tiny"), Tokenizer.from_pretrained()
    prompts = [[1, 5, 9, 2], [7, 60, 33, 5], [300, 2, 5, 5]]
    job = decoders.Job(folder, decode.WEIGHTS[weights], tokenizer, prompts, 9, decode.RANDOM)
    theirs, ours = decoders.LlamaCpp(job), decoders.Alea(job)
    assert decode.verify(ours, {"llama.cpp": theirs}, [3, 1, 4, 1, 5], decode.TOLERANCES[weights]) == {}
    for sequence, (prompt, text) in enumerate(zip(prompts, theirs.generate(), strict=True)):
        expected = ours.logits([*prompt, *text[:-1]])
        difference = abs(theirs.logits_at(sequence) - expected).max()
        assert difference <= decode.TOLERANCES[weights]["llama.cpp"] * abs(expected).max()


def test_threads_are_those_of_torch(monkeypatch):
    monkeypatch.setattr(decode, "measured", lambda case, **_: None)
    assert run(decode, "--threads", "2", "--batch", "1") == 0
    assert torch.get_num_threads() == 2


def test_random_ids_fit_the_window():
    assert len(decode.random_ids(Path(decode.BUILT_IN), 10_000)) == SHAPES["storyteller"].max_position_embeddings
