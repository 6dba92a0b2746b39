"""`alea bench load` at toy size; no figure of time is judged, only that it is of the model that was asked for.

Oracles: of the arithmetic, the tutorial's MiB and model.weights' own list of tensors; of the checkpoints, that
transformers loads them too; of the checks, loaders that are wrong in one known way.
"""

import argparse
import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import load, measure
from model import Llama
from model.weights import BUILT_IN, check, stored_tensors, tensor_homes
from tests.test_architecture import ROOT

TINY = load.Case("tiny", "float32")


@pytest.fixture(scope="module", autouse=True)
def server():
    """Started where the tests' folder for temporary files is not yet in force: its socket needs a short path."""
    assert load.in_fresh_process(os.getpid) != os.getpid()


@pytest.fixture(autouse=True)
def aside(tmp_path, monkeypatch):
    """Records and generated files go to a folder of the test; torch's threads stay as they were."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def here(monkeypatch):
    """No process of its own: what a test replaces is then seen by what is measured."""
    monkeypatch.setattr(load, "in_fresh_process", lambda function, *arguments: function(*arguments))


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    load.add_arguments(parser)
    return load.run(parser.parse_args(words))


def test_records_are_lines_of_json(tmp_path, capsys):
    assert run("--shapes", "tiny", "storyteller", "--dtypes", "float32", "float16", "--rounds", "2", "--save") == 0
    records = [json.loads(line) for line in (tmp_path / "load.jsonl").read_text().splitlines()]
    cases = [(record["shape"], record["dtype"]) for record in records]
    assert cases == [(shape, dtype) for shape in ("tiny", "storyteller") for dtype in ("float32", "float16")]
    for record in records:
        assert record.keys() >= {"commit", "dirty", "machine", "versions", "time"}
        assert (record["benchmark"], record["rounds"], record["stored"]) == ("load", 2, "bfloat16")
        assert record["skipped"] == {}
        assert record["weights_mib"] == record["parameters"] * load.BYTES[record["dtype"]] / 2**20
        assert list(record["token_cpu_seconds"]) == list(record["running_mib"]) == ["alea"]
        for figure in ("seconds", "ready_seconds", "peak_mib", "resident_mib"):
            assert list(record[figure]) == ["alea", "transformers"]
            assert all(figures["p20"] <= figures["p80"] for figures in record[figure].values())
    peaks = records[2]["peak_mib"].values()  # storyteller, float32: 17.8 MiB of weights, which must show
    assert all(0.8 * records[2]["weights_mib"] < figures["p50"] < 100 for figures in peaks)
    printed = capsys.readouterr().out
    assert "tiny, float32: alea" in printed and "25,713" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["load.jsonl"]
    assert 0.8 * records[2]["weights_mib"] < records[2]["resident_mib"]["alea"]["p50"] < 100
    headings, rows = load.rows(records)
    assert len(rows) == 4 and all(len(row) == len(headings) for row in rows)
    assert rows[3][:5] == ["storyteller", "4,676,352", "bfloat16", "float16", "8.9"]


def test_quantised(here, tmp_path):
    """Once each scheme: the size that both loaders must come to is the arithmetic's, to the byte (check_size)."""
    names = ["int8", "fp4", "nf4", "nf4-double"]
    assert run("--shapes", "tiny", "--dtypes", *names, "--rounds", "1", "--save") == 0
    records = [json.loads(line) for line in (tmp_path / "load.jsonl").read_text().splitlines()]
    assert [record["dtype"] for record in records] == names
    for record in records:
        assert list(record["seconds"]) == ["alea", "transformers"] and record["rounds"] == 1
        for figure in ("seconds", "ready_seconds"):
            assert all(figures["p20"] == figures["p80"] > 0 for figures in record[figure].values())


def test_one_loader_alone(here, tmp_path):
    assert run("--shapes", "tiny", "--dtypes", "nf4", "--loaders", "alea", "--rounds", "1", "--save") == 0
    record = json.loads((tmp_path / "load.jsonl").read_text())
    assert list(record["peak_mib"]) == ["alea"] and record["skipped"] == {"transformers": "not asked for"}


def test_a_missing_peer_is_named(here, tmp_path, monkeypatch, capsys):
    version = measure.installed
    monkeypatch.setattr(measure, "installed", lambda name: None if name == "transformers" else version(name))
    assert run("--shapes", "tiny", "--dtypes", "bfloat16", "--rounds", "2", "--save") == 0
    record = json.loads((tmp_path / "load.jsonl").read_text())
    assert list(record["seconds"]) == ["alea"] and record["skipped"] == {"transformers": "not installed"}
    assert "transformers skipped (not installed)" in capsys.readouterr().out
    assert load.rows([record])[1][0][-1].endswith(" / –")
    monkeypatch.setattr(measure, "installed", lambda name: None if name == "accelerate" else version(name))
    assert load.skipped(load.LOADERS, "nf4") == {"transformers": "accelerate is not installed"}
    assert load.skipped(load.LOADERS, "float32") == {}


@pytest.mark.parametrize(
    ("scheme", "within"),
    [("float32", 1e-3), ("bfloat16", 1e-3), ("int8", 4e-3), ("fp4", 7e-3), ("nf4-double", 3e-3)],
)
def test_arithmetic_beside_the_tutorial(scheme, within):
    tutorial = load.TUTORIAL_MIB[scheme]
    assert tutorial * (1 - within) <= load.weights_mib(load.SHAPES["7B"], scheme) <= tutorial


def committed() -> list[load.Record]:
    lines = (ROOT / "bench/results/load.jsonl").read_text(encoding="utf-8").splitlines()
    return list({(r["shape"], r["dtype"]): r for r in map(json.loads, lines)}.values())


@pytest.mark.parametrize("scheme", load.TUTORIAL_MIB)
def test_the_memory_measured_is_near_the_tutorial(scheme):
    resident = load.resident_7b(committed(), scheme)
    assert abs(resident / load.TUTORIAL_MIB[scheme] - 1) < 0.03
    assert abs(resident / load.weights_mib(load.SHAPES["7B"], scheme) - 1) < 0.03
    _, rows = load.tutorial_rows(committed())
    assert [row[2] for row in rows if row[0] == scheme] == [f"{resident:,.0f}"]


def test_a_model_too_deep_for_the_memory_lies_on_a_line():
    depths = [(layers, 1000.0 + 10 * layers) for layers in load.DEPTHS]
    records = [
        {"shape": f"7B-{layers}-layers", "dtype": "float32", "resident_mib": {"alea": {"p50": mib}}}
        for layers, mib in depths
    ]
    assert load.resident_7b(records, "float32") == 1320.0
    whole = {"shape": "7B", "dtype": "float32", "resident_mib": {"alea": {"p50": 7.0}}}
    assert load.resident_7b([*records, whole], "float32") == 7.0


def test_arithmetic_alone_is_quick(tmp_path, capsys):
    assert run("--arithmetic") == 0
    printed = capsys.readouterr().out
    assert "25,705.0" in printed and "page cache" not in printed and list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"scheme must be one of float32, bfloat16, .*, got '2 bits'"):
        load.weights_mib(load.SHAPES["7B"], "2 bits")


@pytest.mark.parametrize("shape", load.SHAPES)
def test_shapes_are_those_of_the_model(shape):
    with torch.device("meta"):
        model = Llama(load.SHAPES[shape])
    stored = {name: tuple(tensor.shape) for name, tensor in stored_tensors(model).items()}
    assert load.tensors(load.SHAPES[shape]) == stored
    assert load.count(load.SHAPES[shape]) == sum(p.numel() for p in model.parameters())


def test_the_built_in_folder():
    assert load.BUILT_IN == BUILT_IN


@pytest.mark.parametrize("stored", load.STORED)
def test_checkpoints_in_shards(tmp_path, stored):
    config = load.SHAPES["tiny"]
    whole = load.generate(tmp_path / "whole", config, stored)
    shards = load.generate(tmp_path / "shards", config, stored, shard_bytes=200_000)
    assert len(list(shards.glob("model-*-of-*.safetensors"))) > 2
    check(Llama(config), tensor_homes(shards), shards)
    expected, found = (Llama.from_pretrained(folder, None).state_dict() for folder in (whole, shards))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {str(tensor.dtype) for tensor in found.values()} == {f"torch.{stored}"}
    load.check_logits(shards, "float32")


def test_weights_differ_from_name_to_name():
    one, other = (load.weights(name, (40, 30), "float32") for name in ("q_proj", "k_proj"))
    assert not torch.equal(one, other) and torch.equal(one, load.weights("q_proj", (40, 30), "float32"))
    assert torch.isfinite(load.weights("large", (1100, 1000), "bfloat16")).all()


def broken(change: str) -> load.Load:
    """Our loader, but for one thing."""

    def loader(folder: Path, scheme: load.Scheme) -> Any:
        llama = load.ours(folder, replace(scheme, quantize="fp4") if change == "fp4" else scheme)
        if change == "a weight":
            llama.layers[0].mlp.down_proj.weight[0] += 1
        elif change == "a layer less":
            llama.layers = llama.layers[:-1]
        elif change == "dtype":
            llama = llama.double()
        return llama

    return loader


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("fp4", "transformers and alea differ in logits by up to"),
        ("a weight", "transformers and alea differ in logits by up to"),
        ("a layer less", "transformers and alea differ in logits by up to"),
        ("dtype", r"transformers must load 292,800 parameters, 1.1 MiB \(tiny, float32\), got 292,800, 2.2 MiB"),
    ],
)
def test_wrong_loaders_are_not_timed(here, tmp_path, monkeypatch, change, message):
    monkeypatch.setitem(load.LOADERS, "transformers", broken(change))
    with pytest.raises(RuntimeError, match=message):
        run("--shapes", "tiny", "--dtypes", "nf4" if change == "fp4" else "float32", "--rounds", "2", "--save")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_size_is_not_recorded():
    with pytest.raises(RuntimeError, match=r"alea must load 292,800 parameters, .*, got 7,"):
        load.check_size(TINY, "alea", {"parameters": 7, "weights_mib": 1.0})


def test_a_failure_in_the_process_is_told(tmp_path):
    warm_up = load.generate(tmp_path / "warm-up", load.WARM_UP, "bfloat16")
    with pytest.raises(RuntimeError, match=r"FileNotFoundError: .*nowhere: no such folder"):
        load.in_fresh_process(load.timed, "alea", tmp_path / "nowhere", "float32", warm_up, 1)
    with pytest.raises(RuntimeError, match="ended with exit code 3"):
        load.in_fresh_process(os._exit, 3)
    with pytest.raises(RuntimeError, match="ended with signal 9, as when memory runs out"):
        load.in_fresh_process(signal.raise_signal, signal.SIGKILL)


def test_processes_are_fresh():
    assert len({os.getpid(), load.in_fresh_process(os.getpid), load.in_fresh_process(os.getpid)}) == 3


def test_a_ctrl_c_while_a_process_starts_waits_for_it():
    before, after = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt), load.interrupts_after():
        signal.raise_signal(signal.SIGINT)
        after.append("started")
    assert after == ["started"] and signal.getsignal(signal.SIGINT) is before


def test_interrupted(tmp_path, monkeypatch, capsys):
    calls = []

    def interrupted(function: Any, *arguments: Any) -> Any:
        calls.append([path.name for path in tmp_path.glob("alea-load-*/*")])
        if len(calls) == 7:  # 1 + 2 x 2 of the first case, check of the second, one load
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(load, "in_fresh_process", interrupted)
    assert run("--shapes", "tiny", "--rounds", "2", "--save") == 0
    assert sorted(calls[0]) == ["tiny", "warm-up"]
    assert [path.name for path in tmp_path.iterdir()] == ["load.jsonl"]
    assert len((tmp_path / "load.jsonl").read_text().splitlines()) == 1
    assert "stopped: 1 of 2 cases" in capsys.readouterr().err


def test_one_checkpoint_at_a_time(tmp_path):
    checkpoints = load.Checkpoints(tmp_path, "bfloat16")
    (tmp_path / "1B").mkdir()
    assert checkpoints.folder("storyteller") == BUILT_IN
    assert checkpoints.folder("tiny") == checkpoints.folder("tiny") == tmp_path / "tiny"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny", "warm-up"]


def test_too_little_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "available_mib", lambda: 20_000.0)
    refusal = "--shapes 7B needs 26,729 MiB of memory in float32; 20,000 MiB are available"
    with pytest.raises(ValueError, match=refusal):
        run("--shapes", "tiny", "7B")
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(load.shutil, "disk_usage", lambda folder: argparse.Namespace(free=100 * 2**20))
    refusal = f"--shapes 110M needs 418 MiB of disk as float32; 100 MiB are free in {tmp_path}"
    with pytest.raises(ValueError, match=refusal):
        run("--shapes", "storyteller", "110M", "--stored", "float32")


def test_what_is_available():
    assert 0 < load.available_mib() < float("inf")
    assert 0 < load.resident_mib("VmRSS") <= load.resident_mib("VmHWM")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--shapes", "8B"], "--shapes must be of tiny, storyteller, 110M, 1B, 7B, .*, got '8B'"),
        (["--dtypes", "int4"], "--dtypes must be of float32, bfloat16, float16, int8, .*, got 'int4'"),
        (["--loaders", "vllm"], "--loaders must be of alea, transformers, got 'vllm'"),
        (["--stored", "float16"], "--stored must be of bfloat16, float32, got 'float16'"),
        (["--rounds", "0"], "--rounds must be >= 1, got 0"),
        (["--threads", "0"], "--threads must be >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(words, refusal):
    with pytest.raises(ValueError, match=refusal):
        run(*words)
