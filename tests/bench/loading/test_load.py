"""`alea bench load` at toy size; no figure of time is judged, only that it is of the model that was asked for.

Oracles: of the checks, loaders that are wrong in one known way; of memory, the size of the weights.
"""

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.loading import load, loaders
from bench.loading.checkpoints import BYTES, WARM_UP, generate
from bench.loading.fresh_process import in_fresh_process
from bench.loading.loaders import LOADERS, Load, load_ours
from bench.loading.schemes import Scheme
from tests.bench.command import run, saved

pytestmark = pytest.mark.exhaustive  # its commands take seconds each

TINY = ("tiny", "float32")


@pytest.fixture(scope="module", autouse=True)
def server():
    """Started where the tests' folder for temporary files is not yet in force: its socket needs a short path."""
    assert in_fresh_process(os.getpid) != os.getpid()


@pytest.fixture(autouse=True)
def aside(results, monkeypatch):
    """Generated files too go to a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(results))


@pytest.fixture
def here(monkeypatch):
    """No process of its own: what a test replaces is then seen by what is measured."""
    monkeypatch.setattr(load, "in_fresh_process", lambda function, *arguments: function(*arguments))


def test_records_are_lines_of_json(results, capsys):
    assert (
        run(load, "--shapes", "tiny", "storyteller", "--dtypes", "float32", "float16", "--rounds", "2", "--save") == 0
    )
    records = saved(results, "load")
    cases = [(record["shape"], record["dtype"]) for record in records]
    assert cases == [(shape, dtype) for shape in ("tiny", "storyteller") for dtype in ("float32", "float16")]
    for record in records:
        assert record.keys() >= {"commit", "dirty", "machine", "versions", "time"}
        assert (record["benchmark"], record["rounds"], record["stored"]) == ("load", 2, "bfloat16")
        assert record["skipped"] == {}
        assert record["weights_mib"] == record["parameters"] * BYTES[record["dtype"]] / 2**20
        assert list(record["token_cpu_seconds"]) == list(record["running_mib"]) == ["alea"]
        for figure in ("seconds", "ready_seconds", "peak_mib", "resident_mib"):
            assert list(record[figure]) == ["alea", "transformers"]
            assert all(figures["p20"] <= figures["p80"] for figures in record[figure].values())
    peaks = records[2]["peak_mib"].values()  # storyteller, float32: 17.8 MiB of weights, which must show
    assert all(0.8 * records[2]["weights_mib"] < figures["p50"] < 100 for figures in peaks)
    printed = capsys.readouterr().out
    assert "25,713" in printed
    assert [path.name for path in results.iterdir()] == ["load.jsonl"]
    assert 0.8 * records[2]["weights_mib"] < records[2]["resident_mib"]["alea"]["p50"] < 100
    headings, rows = load.table(records)
    assert len(rows) == 4 and all(len(row) == len(headings) for row in rows)
    assert rows[3][:5] == ["storyteller", "4,676,352", "bfloat16", "float16", "8.9"]


@pytest.mark.exhaustive
def test_quantized(here, results):
    """Once each scheme: the size that both loaders must come to is the arithmetic's, to the byte (check_size)."""
    names = ["int8", "fp4", "nf4", "nf4-double"]
    assert run(load, "--shapes", "tiny", "--dtypes", *names, "--rounds", "1", "--save") == 0
    records = saved(results, "load")
    assert [record["dtype"] for record in records] == names
    for record in records:
        assert list(record["seconds"]) == ["alea", "transformers"] and record["rounds"] == 1
        for figure in ("seconds", "ready_seconds"):
            assert all(figures["p20"] == figures["p80"] > 0 for figures in record[figure].values())


def test_one_loader_alone(here, results):
    assert run(load, "--shapes", "tiny", "--dtypes", "nf4", "--loaders", "alea", "--rounds", "1", "--save") == 0
    record = saved(results, "load")[0]
    assert list(record["peak_mib"]) == ["alea"] and record["skipped"] == {"transformers": "not asked for"}


def test_a_peer_that_cannot_quantize_is_named(here, results, monkeypatch, capsys):
    monkeypatch.setattr(loaders, "installed", lambda name: None)
    assert run(load, "--shapes", "tiny", "--dtypes", "int8", "--rounds", "1", "--save") == 0
    record = saved(results, "load")[0]
    reason = "accelerate is not installed"
    assert list(record["seconds"]) == ["alea"] and record["skipped"] == {"transformers": reason}
    assert f"skipped: transformers ({reason})" in capsys.readouterr().out
    assert load.table([record])[1][0][-1].endswith(" / –")


def test_without_transformers(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(RuntimeError, match="generated checkpoints need transformers: pip install"):
        run(load, "--shapes", "tiny")
    assert list(results.iterdir()) == []


def test_arithmetic_alone_is_quick(tmp_path, capsys):
    assert run(load, "--arithmetic") == 0
    printed = capsys.readouterr().out
    assert "25,705.0" in printed and "page cache" not in printed and list(tmp_path.iterdir()) == []


def broken(change: str) -> Load:
    """Our loader, but for one thing."""

    def loader(folder: Path, scheme: Scheme) -> Any:
        llama = load_ours(folder, replace(scheme, quantize="fp4") if change == "fp4" else scheme)
        if change == "a weight":
            llama.unpack().layers[0].mlp.down_proj.weight[0] += 1
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
    monkeypatch.setitem(LOADERS, "transformers", broken(change))
    with pytest.raises(RuntimeError, match=message):
        run(load, "--shapes", "tiny", "--dtypes", "nf4" if change == "fp4" else "float32", "--rounds", "2", "--save")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_size_is_not_recorded():
    with pytest.raises(RuntimeError, match=r"alea must load 292,800 parameters, .*, got 7,"):
        load.check_size(TINY, "alea", {"parameters": 7, "weights_mib": 1.0})


def test_a_failure_of_a_loader_comes_back(tmp_path):
    warm_up = generate(tmp_path / "warm-up", WARM_UP, "bfloat16")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        in_fresh_process(load.timed, "alea", tmp_path / "nowhere", "float32", warm_up, 1)


def test_interrupted(tmp_path, monkeypatch, capsys):
    calls = []

    def interrupted(function: Any, *arguments: Any) -> Any:
        calls.append([path.name for path in tmp_path.glob("alea-load-*/*")])
        if len(calls) == 7:  # 1 + 2 x 2 of the first case, check of the second, one load
            raise KeyboardInterrupt
        return function(*arguments)

    monkeypatch.setattr(load, "in_fresh_process", interrupted)
    assert run(load, "--shapes", "tiny", "--rounds", "2", "--save") == 0
    assert sorted(calls[0]) == ["tiny", "warm-up"]
    assert [path.name for path in tmp_path.iterdir()] == ["load.jsonl"]
    assert len(saved(tmp_path, "load")) == 1
    assert "stopped: 1 of 2 cases" in capsys.readouterr().err


def test_too_little_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "available_mib", lambda: 20_000.0)
    refusal = "--shapes 7B needs 26,729 MiB of memory in float32; 20,000 MiB are available"
    with pytest.raises(ValueError, match=refusal):
        run(load, "--shapes", "tiny", "7B")
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(load.shutil, "disk_usage", lambda folder: argparse.Namespace(free=100 * 2**20))
    refusal = f"--shapes 110M needs 418 MiB of disk as float32; 100 MiB are free in {tmp_path}"
    with pytest.raises(ValueError, match=refusal):
        run(load, "--shapes", "storyteller", "110M", "--stored", "float32")


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--shapes", "8B"], "--shapes must be among tiny, storyteller, 110M, 1B, 7B, .*, got '8B'"),
        (["--dtypes", "int4"], "--dtypes must be among float32, bfloat16, float16, int8, .*, got 'int4'"),
        (["--loaders", "vllm"], "--loaders must be among alea, transformers, got 'vllm'"),
        (["--stored", "float16"], "--stored must be among bfloat16, float32, got 'float16'"),
        (["--rounds", "0"], "--rounds must be >= 1, got 0"),
        (["--threads", "0"], "--threads must be >= 1, got 0"),
    ],
)
def test_bad_options_are_refused(words, refusal):
    with pytest.raises(ValueError, match=refusal):
        run(load, *words)
