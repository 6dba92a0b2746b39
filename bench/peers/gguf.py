"""A Llama folder as a GGUF file, for llama.cpp: the same weights, with a vocabulary or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.peers.base import Unavailable
from model import Llama, Tokenizer
from model.loading.weights import stored_tensors


def write_gguf(llama: Llama, dtype: torch.dtype, path: Path, tokenizer: Tokenizer | None = None) -> None:
    """Matrices in dtype, float32 or bfloat16; norms in float32; the vocabulary of a tokenizer.

    Raises: Unavailable without the gguf package, and for a model with biases or scaled angles.
    """
    try:
        import gguf
    except ImportError as error:
        raise Unavailable(str(error)) from error
    config = llama.config
    if config.attention_bias or config.mlp_bias or config.rope_scaling.rope_type != "default":
        raise Unavailable("models with biases or scaled angles are not written as GGUF")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        add_vocabulary(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    kinds = {torch.float32: gguf.GGMLQuantizationType.F32, torch.bfloat16: gguf.GGMLQuantizationType.BF16}
    for name, tensor in stored_tensors(llama).items():
        if name.endswith((".q_proj.weight", ".k_proj.weight")):
            tensor = pairs_side_by_side(tensor, config.head_dim)
        kind = kinds[dtype if tensor.ndim == 2 else torch.float32]
        numbers = gguf.quantize(tensor.float().numpy(), kind)
        writer.add_tensor(names.get_name(name, (".weight",)) or name, numbers, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: Any, tokenizer: Tokenizer) -> None:
    """Its pieces, in which no token ends a text: EOS has another name, as llama.cpp knows `</s>` by its own."""
    from gguf import TokenType

    sp, ids = tokenizer.sp, range(tokenizer.vocab_size)
    kinds = {
        **{i: TokenType.BYTE for i in ids if sp.is_byte(i)},
        **{i: TokenType.CONTROL for i in ids if sp.is_control(i)},
        **{i: TokenType.UNKNOWN for i in ids if sp.is_unknown(i)},
    }
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<no end>" if i == tokenizer.eos_id else sp.id_to_piece(i) for i in ids])
    writer.add_token_scores([sp.get_score(i) for i in ids])
    writer.add_token_types([kinds.get(i, TokenType.NORMAL) for i in ids])
    writer.add_bos_token_id(tokenizer.bos_id)
    writer.add_eos_token_id(sp.unk_id())  # which no text has


def pairs_side_by_side(weight: Tensor, head_dim: int) -> Tensor:
    """llama.cpp turns channels 2i and 2i + 1 together, where Hugging Face's checkpoints have i and i + D/2."""
    outputs, inputs = weight.shape
    return weight.view(outputs // head_dim, 2, head_dim // 2, inputs).transpose(1, 2).reshape(outputs, inputs)
