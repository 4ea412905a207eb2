"""JAX's default generator of random bits, by NumPy: Threefry-2x32 of 20 rounds (Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", 2011), a counter for each number that is drawn.
"""

import jax
import numpy as np

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
ZERO = np.zeros((), np.uint32)


def is_drawn_so(keys) -> bool:
    """Whether a key is of this generator, and numbers have the counters of their positions."""
    return "fry" in str(keys.dtype) and jax.config.jax_threefry_partitionable


def bits(keys, shape: tuple[int, ...], width: int) -> np.ndarray:
    """Return random numbers of so many bits, of an array of keys: (*key, *shape)."""
    high, low = _drawn(keys, shape)
    if width == 64:
        return (high.astype(np.uint64) << np.uint64(32)) | low
    return (high ^ low).astype(f"uint{width}")


def split(keys, shape: tuple[int, ...]):
    """Return keys of the shape of each key: (*key, *shape)."""
    return jax.random.wrap_key_data(np.stack(_drawn(keys, shape), -1))


def fold_in(keys, numbers: np.ndarray):
    """Return the keys that belong to so many numbers, one for each key."""
    high, low = _hashed(_words(keys), ZERO, numbers.astype(np.uint32))
    return jax.random.wrap_key_data(np.stack((high, low), -1))


def _drawn(keys, shape) -> tuple[np.ndarray, np.ndarray]:
    counters = np.arange(np.prod(shape, dtype=np.uint64), dtype=np.uint64).reshape(shape)
    words = [word.reshape(word.shape + (1,) * len(shape)) for word in _words(keys)]
    high, low = (counters >> np.uint64(32)).astype(np.uint32), counters.astype(np.uint32)
    return _hashed(words, high, low)


def _words(keys) -> list[np.ndarray]:
    return list(np.moveaxis(np.asarray(jax.random.key_data(keys)), -1, 0))


def _hashed(words, high, low) -> tuple[np.ndarray, np.ndarray]:
    first, second = words
    schedule = (first, second, first ^ second ^ PARITY)
    high, low = np.add(high, first), np.add(low, second)
    for turn in range(5):
        for rotation in ROTATIONS[turn % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(rotation)) | (low >> np.uint32(32 - rotation)))
        high = high + schedule[(turn + 1) % 3]
        low = low + schedule[(turn + 2) % 3] + np.uint32(turn + 1)
    return high, low
