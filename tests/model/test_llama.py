"""Logits. Oracle: transformers' LlamaForCausalLM on the same folder, within 1e-4 in float32."""

import pytest
import torch
from transformers import LlamaForCausalLM

from model import Llama, packed
from model.kv_cache import Slots
from tests.model.exactness import CONFIGS


@pytest.fixture(autouse=True)
def same_ids():
    torch.manual_seed(0)


@pytest.fixture(scope="module", params=["exact", "torch"])
def ours_of(request):
    """Loads a Llama whose forward pass is C++'s, or torch's."""
    if request.param == "exact" and packed.MISSING:
        pytest.skip(packed.MISSING)
    return Llama.from_pretrained if request.param == "exact" else lambda folder: Llama.from_pretrained(folder).unpack()


@pytest.fixture(scope="module", params=[*CONFIGS, "sharded"])
def pair(request, saved_llamas, ours_of):
    sharded = dict(max_shard_size="40KB", tie_word_embeddings=True)
    folder = saved_llamas(**CONFIGS.get(request.param, sharded))
    return ours_of(folder), LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def test_prefill(pair):
    ours, theirs = pair
    ids = torch.randint(0, 97, (3, 50))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_step_by_step(pair):
    ours, theirs = pair
    ids = torch.randint(0, 97, (2, 40))
    cache = ours.new_cache(2, 40)
    logits = [ours(ids[:, :7], cache)]
    logits += [ours(ids[:, i : i + 1], cache, Slots.ragged([i, i], ids.device)) for i in range(7, 12)]
    logits += [ours(ids[:, 12:], cache, Slots.aligned(2, 12, 28, ids.device))]  # a chunk on top of a cache
    torch.testing.assert_close(torch.cat(logits, dim=1), theirs(ids).logits, rtol=0, atol=1e-4)


@torch.no_grad()
def test_rows_of_different_length(pair):
    """A padded prefill and ragged steps give each row what it gets as a whole."""
    ours, theirs = pair
    lengths, ids = [3, 9, 5], torch.randint(0, 97, (3, 20))
    whole = theirs(ids).logits
    cache = ours.new_cache(3, 20)
    ours(ids[:, :9], cache)  # beyond a row's own length this is padding, overwritten below
    for _ in range(6):
        step = torch.stack([ids[row, length] for row, length in enumerate(lengths)])[:, None]
        logits = ours(step, cache, Slots.ragged(lengths, ids.device))
        lengths = [length + 1 for length in lengths]
        for row, length in enumerate(lengths):
            torch.testing.assert_close(logits[row, -1], whole[row, length - 1], rtol=0, atol=1e-4)


@torch.no_grad()
def test_dropped_and_repeated_rows(llama_folder, ours_of):
    model = ours_of(llama_folder())
    ids = torch.randint(0, 97, (3, 8))
    cache = model.new_cache(3, 12)
    model(ids, cache)
    cache = cache.repeat(2)  # rows 0 0 1 1 2 2
    cache.drop(0)  # rows 2 0 1 1 2
    cache.drop(4)  # rows 2 0 1 1
    new = torch.tensor([[5], [6], [7], [8]])
    logits = model(new, cache, Slots.ragged([8] * 4, ids.device))[:, -1]
    whole = model(torch.cat((ids[[2, 0, 1, 1]], new), dim=1))[:, -1]
    torch.testing.assert_close(logits, whole, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(llama_folder, dtype):
    folder = llama_folder(dtype=dtype, num_key_value_heads=2)
    ours, theirs = Llama.from_pretrained(folder, dtype=dtype), LlamaForCausalLM.from_pretrained(folder, dtype=dtype)
    assert ours.dtype == dtype
    ids = torch.randint(0, 97, (2, 30))
    exact = Llama.from_pretrained(folder)(ids)
    logits = ours(ids)
    assert logits.dtype == torch.float32
    spread = (theirs(ids).logits.float() - exact).abs().max()  # what rounding does to transformers' own
    assert (logits - exact).abs().max() < 3 * spread


def test_a_cast_leaves_the_rotary_angles_alone(llama_folder):
    folder = llama_folder()
    ids = torch.randint(0, 97, (1, 100))
    cast = Llama.from_pretrained(folder).to(torch.bfloat16)
    loaded = Llama.from_pretrained(folder, dtype=torch.bfloat16)
    torch.testing.assert_close(cast(ids), loaded(ids), rtol=0.05, atol=0.02)
