"""A file of arrays and words: a zip of one JSON and of NumPy's `.npy`, in which nothing is code.

It opens without emjax, too: `unzip -p fit.emjax fit.json`. It is on the disk as a whole or not at
all, whatever happens while it is written.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from glob import escape, glob
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np

from emjax.program.array_like import NUMERIC, is_array, is_numeric
from emjax.run.annotations import Path

# Of a file that only later versions read the number is larger. What is added without changing what
# was there does not change it: who does not know it reads past it.
FORMAT = 1
ARRAY = "__array__"
TUPLE = "__tuple__"
FLOAT = "__float__"
# what reading a file that is none, is cut short, or was changed raises
DAMAGES = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, TypeError)


class NotPlain(ValueError):
    """A value that is neither an array, nor numbers, words, or a collection of such."""


class Kind(NamedTuple):
    """A kind of files.

    - `words`: the name of the JSON in it.
    - `writer`: the call that writes such a file, as a user writes it.
    """

    words: str
    writer: str

    def write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write content to a file, as a whole: one of that name stays as it is if it cannot be.

        `content`: numbers, words, arrays, and lists, tuples and dictionaries of such. The same
        content is the same bytes. Errors: `NotPlain`; `OSError`.
        """
        arrays: list[np.ndarray] = []
        words = json.dumps({"format": FORMAT, **encoded(content, arrays)}, indent=1)
        unfinished = f"{os.fspath(path)}.{os.getpid()}.part"
        try:
            with open(unfinished, "wb") as file:
                with zipfile.ZipFile(file, "w") as archive:
                    # of no date
                    archive.writestr(zipfile.ZipInfo(self.words), words)
                    for number, array in enumerate(arrays):
                        entry = zipfile.ZipInfo(_name(number))
                        with archive.open(entry, "w", force_zip64=True) as npy:
                            np.lib.format.write_array(npy, array, allow_pickle=False)
                # a name that is on the disk before what it names would be of an empty file
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            if os.path.exists(unfinished):
                os.unlink(unfinished)
        _sync_folder_of(path)

    def read(self, path: str | os.PathLike) -> dict[str, Any]:
        """Return the content of a file of this kind.

        Errors: `ValueError` for what is none, is cut short or of a later format.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                words = json.loads(archive.read(self.words))
                number_of_format = int(words["format"])
                if number_of_format <= FORMAT:
                    return decoded(words, archive)
        except DAMAGES as error:
            raise ValueError(
                f"'{os.fspath(path)}' is no file that {self.writer} has written, or it is cut "
                f"short ({error})."
            ) from error
        version = words.get("versions", {}).get("emjax", "a later version")
        raise ValueError(
            f"'{os.fspath(path)}' is of format {number_of_format}, written by emjax {version}; "
            f"this version reads formats up to {FORMAT}. Upgrade: pip install -U emjax."
        )


FIT = Kind("fit.json", "fit.save(path)")
CHECKPOINT = Kind("checkpoint.json", "em.run(..., checkpoint=path)")


def remove_unfinished(path: Path) -> None:
    """Remove what is left of files of this name whose writers were killed."""
    for unfinished in glob(f"{escape(os.fspath(path))}.*.part"):
        os.unlink(unfinished)


def _sync_folder_of(path: Path) -> None:
    """Have the new name of a file on the disk, where folders can be asked for that."""
    if os.name == "posix":
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the version of each package, "unknown" where it is not installed as one."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
