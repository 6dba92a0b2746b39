"""Oracle: a dict from the whole text of a block to it; blocks and users counted by hand."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from model.block_cache import NONE, SLOTS, BlockCache, Blocks
from model.serve.engine.prefix_cache import PrefixCache
from tests.conftest import examples


@given(seed=st.integers(0, 10**6))
@examples(100)
def test_a_known_block_holds_what_its_text_says(seed):
    """Rows that share beginnings come and go in any order, and blocks are evicted: whatever `match` finds was written
    for just that text."""
    random = Random(seed)
    blocks, rows = Blocks(size=1), 3
    cache, prefixes = BlockCache(blocks, rows, 4 * SLOTS), PrefixCache(blocks)
    held: dict[int, list[int]] = {}  # the text of each row in use
    written: dict[int, list[int]] = {}  # the text up to the end of each block
    for _ in range(60):
        row = random.randrange(rows)
        if row in held:
            count = random.randrange(1, 5)
            cache.replace(row, prefixes.add(held[row][: count * SLOTS], cache.table[row].tolist()))
            if random.random() < 0.7:
                cache.begin(row, [])
                del held[row]
        else:
            text = [token for _ in range(random.randrange(1, 5)) for token in [random.randrange(2)] * SLOTS]
            found = prefixes.match(text)
            for end, block in enumerate(found, 1):
                assert written[block] == text[: end * SLOTS]
            cache.begin(row, found)
            for entry in range(len(found), len(text) // SLOTS):
                cache.own(row, entry)
                written[int(cache.table[row, entry])] = text[: (entry + 1) * SLOTS]
            held[row] = text
        if random.random() < 0.3:
            prefixes.evict(random.randrange(4))
        in_tables = [block for block in cache.table.ravel().tolist() if block != NONE]
        assert len(set(in_tables) | set(prefixes.known.values())) == blocks.used
    for row in range(rows):
        cache.begin(row, [])
    prefixes.evict(blocks.used)
    assert blocks.used == 0 and not prefixes.known


def test_what_is_used_is_not_evicted_and_the_oldest_goes_first():
    blocks = Blocks(size=1)
    prefixes = PrefixCache(blocks)
    texts = [[token] * 2 * SLOTS for token in range(3)]
    for text in texts:
        table = [blocks.take(), blocks.take()]
        prefixes.add(text, table)
        if text is not texts[0]:  # the first stays in use
            for block in table:
                blocks.give_back(block)
    prefixes.match(texts[1])
    prefixes.evict(1)
    assert [len(prefixes.match(text)) for text in texts] == [2, 2, 1]
    prefixes.evict(10)
    assert [len(prefixes.match(text)) for text in texts] == [2, 0, 0]
