"""GGUF files of our models. Oracles: the gguf package's own reader; rows in an order written by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bench.loading.checkpoints import SHAPES, generate
from bench.peers.base import Unavailable
from bench.peers.gguf import pairs_side_by_side, write_gguf
from model import Llama, Tokenizer
from model.config import RopeScaling
from model.loading.weights import stored_tensors

LAYER = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]


def test_channels_that_turn_together_are_neighbours():
    rows = torch.arange(8.0)[:, None]  # two heads of four channels
    assert pairs_side_by_side(rows, head_dim=4)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_the_reader_of_gguf_reads(tmp_path, dtype):
    gguf = pytest.importorskip("gguf")
    config = replace(SHAPES["tiny"], num_hidden_layers=2, num_key_value_heads=2)
    llama = Llama.from_pretrained(generate(tmp_path / "tiny", config, "float32"), weights=dtype)
    write_gguf(llama, dtype, tmp_path / "tiny.gguf")
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    tensors = {tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type) for tensor in reader.tensors}
    names = [f"blk.{layer}.{name}.weight" for layer in range(2) for name in LAYER]
    assert tensors.keys() == {*names, "token_embd.weight", "output_norm.weight", "output.weight"}
    stored = {name: tensor.float().numpy() for name, tensor in stored_tensors(llama).items()}
    for there, here in (
        ("ffn_down", "mlp.down_proj"),
        ("attn_v", "self_attn.v_proj"),
        ("attn_norm", "input_layernorm"),
    ):
        assert np.array_equal(tensors[f"blk.1.{there}.weight"], stored[f"model.layers.1.{here}.weight"])
    assert np.array_equal(tensors["output.weight"], stored["lm_head.weight"])
    for there, here, heads in (("attn_q", "q_proj", 8), ("attn_k", "k_proj", 2)):
        expected = stored[f"model.layers.0.self_attn.{here}.weight"].reshape(heads, 2, 4, 64)
        found = tensors[f"blk.0.{there}.weight"].reshape(heads, 4, 2, 64)
        assert np.array_equal(found.swapaxes(1, 2), expected)
    kinds = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) == 2}
    assert kinds == {"F32" if dtype == torch.float32 else "BF16"}
    fields = {"attention.head_count": 8, "attention.head_count_kv": 2, "block_count": 2, "rope.freq_base": 10000}
    assert {name: reader.get_field(f"llama.{name}").contents() for name in fields} == fields


def test_a_vocabulary_without_an_end(tmp_path):
    """Oracle: SentencePiece's own pieces; only the name of EOS is another."""
    gguf = pytest.importorskip("gguf")
    tokenizer = Tokenizer.from_pretrained()
    llama = Llama.from_pretrained(generate(tmp_path / "tiny", SHAPES["tiny"], "float32"))
    write_gguf(llama, torch.float32, tmp_path / "tiny.gguf", tokenizer)
    reader = gguf.GGUFReader(tmp_path / "tiny.gguf")
    fields = {
        name: reader.get_field(f"tokenizer.ggml.{name}").contents() for name in ("tokens", "scores", "token_type")
    }
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    assert [i for i, piece in enumerate(pieces) if fields["tokens"][i] != piece] == [tokenizer.eos_id]
    assert "</s>" not in fields["tokens"] and fields["scores"] == [
        tokenizer.sp.get_score(i) for i in range(len(pieces))
    ]
    assert fields["token_type"][:6] == [2, 3, 3, 6, 6, 6] and set(fields["token_type"][259:]) == {1}
    assert reader.get_field("tokenizer.ggml.bos_token_id").contents() == tokenizer.bos_id
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == tokenizer.sp.unk_id()


@pytest.mark.parametrize(
    "change",
    [{"attention_bias": True}, {"mlp_bias": True}, {"rope_scaling": RopeScaling("linear", factor=2.0)}],
)
def test_other_models_are_refused(tmp_path, change):
    pytest.importorskip("gguf")
    with pytest.raises(Unavailable, match="biases or scaled angles"):
        write_gguf(Llama(replace(SHAPES["tiny"], **change)), torch.float32, tmp_path / "file.gguf")
    assert not list(tmp_path.iterdir())


def test_without_gguf(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(Unavailable, match="gguf"):
        write_gguf(Llama(SHAPES["tiny"]), torch.float32, tmp_path / "file.gguf")
