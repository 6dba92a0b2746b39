"""Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011): random bits as a pure function of key and counter."""

import numpy as np

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
ROUNDS = 10
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)


def philox(counter: list[np.ndarray], key: list[np.ndarray]) -> list[np.ndarray]:
    """Four 32-bit words from a counter of four and a key of two; each word is a uint64 array of values below 2^32.

    >>> zero = np.zeros(1, np.uint64)
    >>> [hex(int(word[0])) for word in philox([zero] * 4, [zero] * 2)]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product_0, product_1 = MULTIPLIER_0 * c0, MULTIPLIER_1 * c2
        c0, c1, c2, c3 = (product_1 >> HALF) ^ c1 ^ k0, product_1 & LOW, (product_0 >> HALF) ^ c3 ^ k1, product_0 & LOW
        k0, k1 = (k0 + WEYL_0) & LOW, (k1 + WEYL_1) & LOW
    return [c0, c1, c2, c3]


def random_bits(seed: np.ndarray, position: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """The 64 random bits of each draw: uint64 [B] from three uint64 [B] (docs/definition.md step 5).

    >>> one = np.array([1], np.uint64)
    >>> random_bits(one, one, one)
    array([17314740229060664143], dtype=uint64)
    """
    counter = [position & LOW, position >> HALF, stream & LOW, stream >> HALF]
    c0, c1, _, _ = philox(counter, [seed & LOW, seed >> HALF])
    return c0 | c1 << HALF
