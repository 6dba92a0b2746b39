"""Blocks of earlier texts, by the tokens that they hold: a prompt that begins alike need not be read again.

A block's keys and values depend on all tokens up to its last, so its key is its parent block and its own tokens: a tree
of blocks. Logits from reused blocks equal those from a prompt read anew, bit for bit (docs/definition.md, part two).
"""

from __future__ import annotations

from collections import OrderedDict

from model.block_cache import NONE, SLOTS, Blocks

Key = tuple[int, tuple[int, ...]]  # the parent block, and the tokens


class PrefixCache:
    """The tree. It is one more user of each block in it, and gives up those that were unused for longest.

    >>> blocks = Blocks(size=8)
    >>> prefixes, ids, table = PrefixCache(blocks), list(range(40)), [blocks.take(), blocks.take()]
    >>> prefixes.add(ids, table) == prefixes.match(ids) == table, prefixes.match([7, *ids[1:]])
    (True, [])
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.known: OrderedDict[Key, int] = OrderedDict()  # the least recently used first, a child before its parent

    def match(self, ids: list[int]) -> list[int]:
        """The known blocks of the longest beginning of a text, in whole blocks."""
        found: list[int] = []
        keys: list[Key] = []
        for tokens in whole_blocks(ids):
            key = (found[-1] if found else NONE, tokens)
            if key not in self.known:
                break
            keys.append(key)
            found.append(self.known[key])
        self.touch(keys)
        return found

    def add(self, ids: list[int], table: list[int]) -> list[int]:
        """Remember the whole blocks of a text; table: its blocks, which hold at least these ids.

        Returns: the blocks that the text must use from now on. Where another text had the same tokens, they are its
        blocks: so whoever uses a block in the tree also uses its parent there.
        """
        kept: list[int] = []
        keys: list[Key] = []
        for tokens, block in zip(whole_blocks(ids), table, strict=False):
            key = (kept[-1] if kept else NONE, tokens)
            if key not in self.known:
                self.known[key] = block
                self.blocks.users[block] += 1
            keys.append(key)
            kept.append(self.known[key])
        self.touch(keys)
        return kept

    def touch(self, path: list[Key]) -> None:
        for key in reversed(path):
            self.known.move_to_end(key)

    def evict(self, count: int) -> None:
        """Give up blocks that nobody else uses, the least recently used first."""
        unused = (key for key, block in self.known.items() if self.blocks.users[block] == 1)
        for key in [key for key, _ in zip(unused, range(count), strict=False)]:
            self.blocks.give_back(self.known.pop(key))


def whole_blocks(ids: list[int]) -> list[tuple[int, ...]]:
    return [tuple(ids[i : i + SLOTS]) for i in range(0, len(ids) - SLOTS + 1, SLOTS)]
