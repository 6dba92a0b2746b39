"""Rows of the cache, moved. Oracle: the same rows picked from a copy."""

import pytest
import torch

from model.config import LlamaConfig
from model.kv_cache import KVCache

ROWS, LENGTH = 4, 5


@pytest.fixture
def cache() -> KVCache:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=2,
    )
    cache = KVCache(config, ROWS, LENGTH, torch.float32, torch.device("cpu"))
    for store in (cache.keys, cache.values):
        store.copy_(torch.randn(store.shape, generator=torch.Generator().manual_seed(len(store))))
    cache.values += 1
    return cache


@pytest.mark.parametrize("row", range(ROWS))
def test_drop(cache: KVCache, row: int):
    """The last row takes the place of the dropped one."""
    left = list(range(ROWS - 1))
    if row < ROWS - 1:
        left[row] = ROWS - 1
    keys, values = cache.keys[:, left].clone(), cache.values[:, left].clone()
    cache.drop(row)
    assert torch.equal(cache.keys, keys) and torch.equal(cache.values, values)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 0], [2], [0, 0, 1, 2, 3, 3]])
@pytest.mark.parametrize("used", [1, LENGTH])
def test_reorder(cache: KVCache, rows: list[int], used: int):
    """Of the slots in use; the others are overwritten before they are read."""
    keys, values = cache.keys[:, rows, :, :used].clone(), cache.values[:, rows, :, :used].clone()
    cache.reorder(rows, used)
    assert cache.keys.shape[1] == cache.values.shape[1] == len(rows)
    assert torch.equal(cache.keys[:, :, :, :used], keys) and torch.equal(cache.values[:, :, :, :used], values)


def test_repeat(cache: KVCache):
    """Each row's copies stand side by side."""
    copy, rows = cache.repeat(3), [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(copy.keys, cache.keys[:, rows]) and torch.equal(copy.values, cache.values[:, rows])
