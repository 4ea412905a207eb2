"""What a Python object is, as a short word that another process finds, too."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from emjax.numerics.guards import is_key
from emjax.program.identity import Unidentified, identity

# letters of a digest
LENGTH = 32
# what is hashed at a time of arrays that are not contiguous
ROWS_AT_A_TIME = 2**16
# of code, what it does: no names of local variables, no lines
OF_CODE = ("co_code", "co_names", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount")


def fingerprint(value: Any) -> str:
    """Return a digest of an object's identity, which does not depend on where it is in memory.

    Errors: `Unidentified` for an object with state that is not seen.
    """
    digest = hashlib.sha256()
    _add(identity(value), digest.update)
    return digest.hexdigest()[:LENGTH]


def fingerprint_of_array(array: Any) -> str:
    """Return type, shape and a digest of an array's numbers.

    Of one that is distributed over processes, all of these are to ask.
    """
    kind = f"{array.dtype}{list(array.shape)}"
    if is_key(array):
        array = jax.random.key_data(array)
    digest = hashlib.sha256()
    is_partly_here = isinstance(array, jax.Array) and not array.is_fully_addressable
    shards = [shard.data for shard in array.addressable_shards] if is_partly_here else [array]
    for shard in map(np.asarray, shards):
        if shard.flags.c_contiguous:
            digest.update(shard.reshape(-1).view(np.uint8))
            continue
        # a copy of a few rows at a time
        for first in range(0, len(shard), ROWS_AT_A_TIME):
            rows = np.ascontiguousarray(shard[first : first + ROWS_AT_A_TIME])
            digest.update(rows.reshape(-1).view(np.uint8))
    word = digest.hexdigest()[:LENGTH]
    return f"{kind} {over_processes(word) if is_partly_here else word}"


def over_processes(word: str) -> str:
    """Return a digest of those that all processes have."""
    if jax.process_count() == 1:
        return word
    words = multihost_utils.process_allgather(np.frombuffer(bytes.fromhex(word), np.uint8))
    return hashlib.sha256(np.asarray(words).tobytes()).hexdigest()[:LENGTH]


def fingerprints(named: Mapping[str, Any]) -> dict[str, str]:
    """Return {name: what a value is, as a word}.

    Of an object of which it cannot be said, its type.
    """
    words = {}
    for name, value in named.items():
        if value is None or isinstance(value, bool | int | float | str):
            words[name] = repr(value)
        elif isinstance(value, np.ndarray | jax.Array) and value.dtype != object:
            words[name] = fingerprint_of_array(value)
        else:
            try:
                words[name] = fingerprint(value)
            except Unidentified:
                words[name] = type(value).__qualname__
    return words


def _add(part: Any, update: Callable[[Any], None]) -> None:
    """Add a part of an identity to a digest."""
    if isinstance(part, tuple | list):
        update(b"(")
        for item in part:
            _add(item, update)
        update(b")")
    elif isinstance(part, frozenset):
        update(b"{")
        # in an order that is not that of addresses
        for digest in sorted(_digest(item) for item in part):
            update(digest)
        update(b"}")
    elif isinstance(part, types.CodeType):
        for name in OF_CODE:
            _add(getattr(part, name), update)
        _add(part.co_consts, update)
    else:
        update(_word(part))


def _digest(part: Any) -> bytes:
    digest = hashlib.sha256()
    _add(part, digest.update)
    return digest.digest()


def _word(part: Any) -> bytes:
    """Return a part of an identity that has none itself."""
    if isinstance(part, Enum):
        return f"{type(part).__qualname__}.{part.name};".encode()
    if isinstance(part, bytes):
        return b"bytes" + part + b";"
    if isinstance(part, types.ModuleType | np.ufunc):
        return f"{part.__name__};".encode()
    if isinstance(part, type | types.BuiltinFunctionType):
        return f"{part.__module__}.{part.__qualname__};".encode()
    if isinstance(part, np.generic):
        return str(part.dtype).encode() + part.tobytes() + b";"
    # numbers, strings, types of arrays, annotations: none has an address in its words
    return f"{type(part).__name__} {part!r};".encode()
