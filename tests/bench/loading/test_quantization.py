"""`alea bench quantization` at toy size. Oracles: float32 beside itself; KL by torch's own kl_div in float64; and that
more bits are nearer.
"""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import report
from bench.loading import quantization
from tests.bench.command import run, saved
from tests.test_architecture import ROOT


@pytest.fixture(autouse=True)
def aside(results, monkeypatch):
    monkeypatch.setattr(quantization, "TIMED", 4)


@pytest.mark.exhaustive
def test_records(results, monkeypatch, capsys):
    words = ["--texts", "2", "--tokens", "40", "--rounds", "2", "--save"]
    assert run(quantization, "--dtypes", "float16", "int8", "nf4", "nf4-double", *words) == 0
    records = saved(results, "quantization")
    assert [record["dtype"] for record in records] == ["float32", "float16", "int8", "nf4", "nf4-double"]
    exact, half, int8, nf4, double = records
    assert exact["kl"] == {"mean": 0.0, "p99": 0.0, "max": 0.0}
    assert exact["same_top"] == exact["same_draw"] == 1.0
    means = [record["kl"]["mean"] for record in records]
    assert 0 < means[1] < 1e-4 < means[2] < 0.01 < means[3] < 0.3 and means[4] < 0.3
    for record in records:
        assert record.keys() >= {"commit", "dirty", "machine", "versions", "time"}
        assert record["kl"]["mean"] <= record["kl"]["p99"] <= record["kl"]["max"]
        assert 0.3 < record["same_draw"] <= 1 and 0.3 < record["same_top"] <= 1
    assert half["same_draw"] > int8["same_draw"] > min(nf4["same_draw"], double["same_draw"])
    assert "99 % below" in capsys.readouterr().out
    table = report.TABLES["quantization"]()
    assert table.startswith("| weights | KL, mean |") and table.count("\n| nf4") == 2


@given(st.integers(0, 999), st.floats(0, 3))
def test_divergence_is_that_of_torch(seed, width):
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(3, 50, generator=generator)
    q = p + width * torch.randn(3, 50, generator=generator)
    found = quantization.divergence(p, q)
    ln_p, ln_q = (logits.double().log_softmax(-1) for logits in (p, q))
    expected = torch.nn.functional.kl_div(ln_q, ln_p, reduction="none", log_target=True).sum(-1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found >= 0).all() and (quantization.divergence(p, p) == 0).all()


def test_each_token_is_drawn_with_the_bits_of_its_stream_and_position():
    """As generate draws it: the first text's own tokens come out again (but for ties that batching may break)."""
    texts = quantization.drawn(2, 30)
    logits = quantization.logits("float32", texts)
    length = texts.shape[1]
    again = quantization.draws(
        logits[length - 31 : length - 1], torch.zeros(1, 30)
    )  # position 0 is the first new token
    assert (again == texts[0, -30:]).float().mean() > 0.9
    both = quantization.draws(logits, texts)
    assert torch.equal(both[:length], quantization.draws(logits[:length], texts[:1]))
    assert not torch.equal(both[length:], quantization.draws(logits[length:], texts[:1]))  # another stream


def test_the_committed_record():
    """Of float32 itself nothing is lost, and the fewer bits, the more; and what docs/decoding.md says of it."""
    lines = (ROOT / "bench/results/quantization.jsonl").read_text(encoding="utf-8").splitlines()
    records = {record["dtype"]: record for record in map(json.loads, lines)}
    means = {scheme: record["kl"]["mean"] for scheme, record in records.items()}
    assert means.keys() == {"float32", *quantization.SCHEMES} and means["float32"] == 0
    assert means["float16"] < means["bfloat16"] < means["int8"] < means["nf4"] < means["fp4"] < 0.5
    assert means["nf4-double"] == pytest.approx(means["nf4"], rel=0.05)
    assert 1 - records["float16"]["same_draw"] == pytest.approx(1 / 20, rel=0.1)
    speeds = {scheme: record["tokens_a_second"]["p50"] for scheme, record in records.items()}
    for scheme in ("fp4", "nf4", "nf4-double"):
        assert speeds[scheme] / speeds["float32"] == pytest.approx(1 / 2, rel=0.1)
    assert speeds["int8"] / speeds["float32"] < 1 / 3


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["--texts", "0"], "--texts must be >= 1, got 0"),
        (["--tokens", "0"], "--tokens must be >= 1, got 0"),
        (["--rounds", "1"], "--rounds must be >= 2, got 1"),
        (["--dtypes", "float32"], "--dtypes must be among bfloat16, .*, got 'float32'"),
    ],
)
def test_bad_options_are_refused(words, refusal):
    with pytest.raises(ValueError, match=refusal):
        run(quantization, *words)
