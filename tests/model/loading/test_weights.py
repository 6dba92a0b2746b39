"""Checkpoints as they come, and one clear error for each way in which one can be broken."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import Llama, Tokenizer, generate
from model.loading import weights
from model.loading.weights import stored_tensors

NORM = "model.layers.1.input_layernorm.weight"


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def refused(folder, error, *parts):
    with pytest.raises(error) as caught:
        Llama.from_pretrained(folder)
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "config", [{}, {"tie_word_embeddings": True, "attention_bias": True, "num_key_value_heads": 2}]
)
def test_what_is_loaded_is_what_was_stored(llama_folder, config):
    folder = llama_folder(**config)
    stored, loaded = load_file(folder / "model.safetensors"), stored_tensors(Llama.from_pretrained(folder))
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_dtype_as_stored_or_as_asked(llama_folder):
    folder = llama_folder(dtype=torch.bfloat16)
    assert Llama.from_pretrained(folder).dtype == torch.float32
    assert Llama.from_pretrained(folder, dtype=None).dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"dtype must be float32, float16, bfloat16 or None \(as stored\), got torch.int8"
    ):
        Llama.from_pretrained(folder, dtype=torch.int8)


def test_a_model_has_one_dtype(llama_folder):
    """Mixed files take the embedding's dtype, float64 becomes float32."""
    folder = llama_folder(dtype=torch.bfloat16)
    rewrite(folder, lambda t: t.update({NORM: torch.ones(48)}))
    assert {p.dtype for p in Llama.from_pretrained(folder, dtype=None).parameters()} == {torch.bfloat16}
    rewrite(folder, lambda t: t.update({name: tensor.double() for name, tensor in t.items()}))
    assert {p.dtype for p in Llama.from_pretrained(folder, dtype=None).parameters()} == {torch.float32}


def test_a_single_file_goes_before_shards(llama_folder):
    """As in transformers, where a folder holds both."""
    folder = llama_folder()
    (folder / "model.safetensors.index.json").write_text("broken")
    Llama.from_pretrained(folder)


def test_legacy_inv_freq_and_a_tied_head_are_ignored(llama_folder):
    folder = llama_folder(tie_word_embeddings=True)
    ids = torch.tensor([[1, 2, 3]])
    before = Llama.from_pretrained(folder)(ids)

    def change(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(6)
        tensors["lm_head.weight"] = torch.zeros(97, 48)

    rewrite(folder, change)
    assert torch.equal(Llama.from_pretrained(folder)(ids), before)


def test_missing_extra_and_misshapen_tensors(llama_folder):
    folder = llama_folder()
    rewrite(folder, lambda t: t.update({NORM: torch.ones(47)}))
    refused(folder, ValueError, "model.safetensors", NORM, "(48,)", "(47,)")
    rewrite(folder, lambda t: t.update({NORM: torch.ones(48, dtype=torch.int32)}))
    refused(folder, ValueError, "model.safetensors", NORM, "got I32")
    rewrite(folder, lambda t: t.pop(NORM))
    refused(folder, ValueError, folder.name, f"tensor {NORM!r} is missing")
    rewrite(folder, lambda t: t.update({NORM: torch.ones(48), "model.extra": torch.ones(1)}))
    refused(folder, ValueError, "model.safetensors", "tensor 'model.extra' is no part of the Llama")


def reconfigure(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("layers", [10**9, 10**5, 4, 2])
def test_layers_are_counted_before_they_are_built(llama_folder, monkeypatch, layers):
    folder = llama_folder()
    reconfigure(folder, num_hidden_layers=layers)
    monkeypatch.setattr(weights, "Llama", lambda config: pytest.fail("built"))
    refused(folder, ValueError, "config.json: num_hidden_layers must be 3, the layers", f"got {layers}")


def test_sizes_beyond_what_torch_can_count(llama_folder):
    """torch's own error comes with its stack, on many lines."""
    folder, most = llama_folder(), 2**31 - 2
    heads = {"num_attention_heads": most, "num_key_value_heads": most, "head_dim": most}
    reconfigure(folder, hidden_size=most, intermediate_size=most, **heads)
    refused(folder, ValueError, "config.json: describes matrices of more than 2^63 bytes")


EVIL = "evil\x1b[31m.weight"  # which a terminal would obey


def test_names_of_a_stranger_are_shown_escaped_and_short(llama_folder):
    folder = llama_folder()
    rewrite(folder, lambda t: t.update({EVIL: torch.ones(1)}))
    refused(folder, ValueError, "tensor 'evil\\x1b[31m.weight' is no part of the Llama")
    index_path = folder / "model.safetensors.index.json"
    (folder / "model.safetensors").unlink()
    for weight_map in ({EVIL: "x" * 5000}, {"x" * 5000: EVIL}, {"\ud800": 7}):
        index_path.write_text(json.dumps({"weight_map": weight_map}))
        refused(folder, ValueError, "index.json", "of this folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_what_is_no_file_is_named(llama_folder, name):
    folder = llama_folder()
    path = folder / name
    path.unlink(missing_ok=True)
    for make, kind in (
        (path.mkdir, "a folder"),
        (lambda: os.mkfifo(path), "a pipe"),
        (lambda: path.symlink_to("/dev/zero"), "a device"),
        (lambda: path.symlink_to(path), "a link that leads to no file"),
    ):
        make()
        refused(folder, ValueError, f"{name}: must be a file, got {kind}")
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_gives_no_numbers_is_named(llama_folder, value):
    """Where it first matters: to look at every weight would cost a pass over them."""
    folder = llama_folder()
    rewrite(folder, lambda t: t[NORM].fill_(value))
    model = Llama.from_pretrained(folder)
    for beams in (1, 2):
        with pytest.raises(ValueError, match=r"llama: gives NaN or \+inf .*its weights hold some, or torch.float32 is"):
            generate(model, Tokenizer.from_pretrained(), [[1, 2]], max_new_tokens=2, num_beams=beams)


def test_truncated_file(llama_folder):
    folder = llama_folder()
    path = folder / "model.safetensors"
    for size in (path.stat().st_size - 100, 5, 0):
        os.truncate(path, size)
        refused(folder, ValueError, "model.safetensors: truncated")


def test_broken_shards(llama_folder):
    folder = llama_folder(max_shard_size="40KB")
    index_path = folder / "model.safetensors.index.json"
    index = json.loads(index_path.read_text())
    shard = index["weight_map"][NORM]

    def with_home(home):
        index_path.write_text(json.dumps({"weight_map": index["weight_map"] | {NORM: home}}))
        return folder

    for outside in ("../" + shard, "/etc/passwd", "sub/" + shard, "model.bin", 7):
        refused(with_home(outside), ValueError, "index.json", NORM, "of this folder", repr(outside))
    refused(with_home("none.safetensors"), FileNotFoundError, "none.safetensors", NORM)
    other = next(s for s in index["weight_map"].values() if s != shard)
    refused(with_home(other), ValueError, other, f"tensor {NORM!r} is missing")
    index_path.write_text("[]")
    refused(folder, ValueError, "index.json: must hold a JSON object, got list")
    index_path.write_text('{"weight_map": [1]}')
    refused(folder, ValueError, "index.json: weight_map must be an object, got [1]")
    index_path.write_text('{"weight_map": {}}')
    refused(folder, ValueError, "config.json: num_hidden_layers must be 0", "got 3")
    index_path.write_text(json.dumps(index))
    path = folder / shard
    save_file(load_file(path) | {"model.extra": torch.ones(1)}, path)
    refused(folder, ValueError, shard, "tensor 'model.extra' is no part of the Llama")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "must hold a JSON object, got list"),
        ('{"eos_token_id": "2"}', "eos_token_id must be a token id"),
        (
            '{"eos_token_id": [2, 97]}',
            "eos_token_id must be a token id in 0 .. 96, a list of them or none, got [2, 97]",
        ),
        ('{"do_sample": "false"}', "do_sample must be true or false, got 'false'"),
        ('{"top_p": 1.5}', "top_p must be in [0, 1], got 1.5"),
        (json.dumps({"top_p": "x" * 5000}), "top_p must be a number"),
    ],
)
def test_a_broken_generation_config_is_named(llama_folder, text, message):
    folder = llama_folder()
    (folder / "generation_config.json").write_text(text)
    refused(folder, ValueError, "generation_config.json", message)


def test_folders_without_weights(llama_folder, tmp_path):
    refused(tmp_path / "nowhere", FileNotFoundError, "nowhere: no such folder")
    folder = llama_folder()
    (folder / "model.safetensors").unlink()
    refused(folder, FileNotFoundError, "holds neither model.safetensors nor")
    (folder / "pytorch_model.bin").write_bytes(b"never read")
    refused(folder, FileNotFoundError, "found 'pytorch_model.bin', a pickle, which could run code")


MEASURE = """
import sys, torch
from pathlib import Path
from model import Llama, Tokenizer, generate
from model.loading import weights

def status(name):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024

Llama.from_pretrained(sys.argv[1])(torch.tensor([[1]]))  # a small one first: libraries and buffers
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: a child inherits its parent's
llama = Llama.from_pretrained(sys.argv[2])
print((status("VmHWM") - before) / sum(p.numel() * p.element_size() for p in llama.parameters()))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be measured on Linux alone")
def test_peak_memory_stays_near_the_loaded_weights(llama_folder):
    small = llama_folder("small")
    size = dict(vocab_size=2000, hidden_size=640, intermediate_size=2000, num_hidden_layers=16, num_attention_heads=10)
    large = llama_folder("large", dtype=torch.bfloat16, **size)  # 360 MB in float32
    command = [sys.executable, "-c", MEASURE, str(small), str(large)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout
    assert 0.9 < float(output) < 1.2
