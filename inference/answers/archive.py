"""A file of arrays and words: a zip of one JSON and of NumPy's `.npy`, in which nothing is code.

It opens without emjax, too: `unzip -p fit.emjax fit.json`.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emjax.program.array_like import NUMERIC, is_array, is_numeric
from emjax.run.annotations import Path

# Of a file that only later versions read the number is larger. What is added without changing what
# was there does not change it: who does not know it reads past it.
FORMAT = 1
WORDS = "fit.json"
ARRAY = "__array__"
TUPLE = "__tuple__"
FLOAT = "__float__"
# what reading a file that is none, is cut short, or was changed raises
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, TypeError)


class NotPlain(ValueError):
    """A value that is neither an array, nor numbers, words, or a collection of such."""


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write content to a file, as a whole: one of that name stays as it is if it cannot be.

    `content`: numbers, words, arrays, and lists, tuples and dictionaries of such. The same content
    is the same bytes. Errors: `NotPlain`; `ValueError` for what is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"fit.save takes the file: fit.save('fit.emjax'), not {path!r}.")
    arrays: list[np.ndarray] = []
    words = json.dumps({"format": FORMAT, **encoded(content, arrays)}, indent=1)
    unfinished = f"{os.fspath(path)}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(unfinished, "w") as archive:
            # of no date
            archive.writestr(zipfile.ZipInfo(WORDS), words)
            for number, array in enumerate(arrays):
                with archive.open(zipfile.ZipInfo(_name(number)), "w", force_zip64=True) as npy:
                    np.lib.format.write_array(npy, array, allow_pickle=False)
        os.replace(unfinished, path)
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Return the content of a file that `write` has written.

    Errors: `ValueError` for what is none, is cut short or of a later format.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            words = json.loads(archive.read(WORDS))
            number_of_format = int(words["format"])
            if number_of_format <= FORMAT:
                return decoded(words, archive)
    except DAMAGES as error:
        raise ValueError(
            f"'{os.fspath(path)}' is no file that fit.save(path) has written, or it is cut short "
            f"({error})."
        ) from error
    version = words.get("versions", {}).get("emjax", "a later version")
    raise ValueError(
        f"'{os.fspath(path)}' is of format {number_of_format}, written by emjax {version}; this "
        f"version reads formats up to {FORMAT}. Upgrade: pip install -U emjax."
    )


def is_plain_array(value: Any) -> bool:
    """Whether a value is an array of numbers that NumPy has by itself."""
    return is_array(value) and is_numeric(value) and getattr(value.dtype, "kind", "V") in NUMERIC


def _name(number: int) -> str:
    return f"arrays/{number}.npy"


def encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Return a value as JSON has it, and add its arrays to `arrays`. Errors: `NotPlain`."""
    if isinstance(value, np.bool_ | np.integer | np.floating):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    # JSON has no infinity
    if isinstance(value, float):
        return {FLOAT: str(value)}
    if is_plain_array(value):
        arrays.append(np.asarray(value))
        return {ARRAY: len(arrays) - 1}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: encoded(part, arrays) for name, part in value.items()}
    if type(value) is list:
        return [encoded(part, arrays) for part in value]
    if type(value) is tuple:
        return {TUPLE: [encoded(part, arrays) for part in value]}
    raise NotPlain(type(value).__name__)


def decoded(value: Any, archive: zipfile.ZipFile) -> Any:
    """Return a value of which `encoded` is JSON, its arrays NumPy's."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [decoded(part, archive) for part in value]
    if not isinstance(value, Mapping):
        return value
    if list(value) == [TUPLE]:
        return tuple(decoded(part, archive) for part in value[TUPLE])
    if list(value) == [FLOAT]:
        return float(value[FLOAT])
    if list(value) == [ARRAY] and isinstance(value[ARRAY], int):
        npy = io.BytesIO(archive.read(_name(value[ARRAY])))
        return np.lib.format.read_array(npy, allow_pickle=False)
    return {name: decoded(part, archive) for name, part in value.items()}
