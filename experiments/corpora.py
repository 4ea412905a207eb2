"""Two collections of texts that every machine can have, and the counts of their words.

A corpus is a dict from the name of a document to its text.
"""

import ast
import sys
import sysconfig
import tokenize
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

CONSTITUTION = Path(__file__).parent / "data" / "constitution.txt"
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Not the library itself: its tests, an application, a repository of wheels, and two jokes.
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "ensurepip",
    "site-packages",
    "antigravity",
    "this",
}


class WordCounts(NamedTuple):
    """How often each document holds each word: `counts[document, word]`, integers."""

    documents: list[str]
    words: list[str]
    counts: np.ndarray


def constitution() -> dict[str, str]:
    """Return the preamble, every section of the articles and of the amendments, by its heading."""
    sections = {}
    for piece in CONSTITUTION.read_text(encoding="utf-8").split("# ")[1:]:
        heading, text = piece.split("\n", 1)
        sections[heading] = text.strip()
    return sections


def standard_library(min_words: int = 80) -> dict[str, str]:
    """Return all docstrings of each public module of Python's standard library.

    Modules of fewer than `min_words` words are left out.

    The sources are parsed, never imported: importing would run them.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    corpus = {}
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if is_public(inside):
            text = docstrings(path)
            if len(text.split()) >= min_words:
                corpus[module_name(inside)] = text
    return corpus


def is_public(path: Path) -> bool:
    """Say whether the file is a module of the standard library that users import."""
    parts = path.with_suffix("").parts
    private = any(part.startswith("_") and part != "__init__" for part in parts)
    return parts[0] in sys.stdlib_module_names and not private and LEFT_OUT.isdisjoint(parts)


def module_name(path: Path) -> str:
    """Return `email.message` for `email/message.py`, and `email` for `email/__init__.py`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def docstrings(path: Path) -> str:
    """Return every docstring in the file, of the module, its classes and its functions."""
    with tokenize.open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some sources have unknown escapes in their strings
        tree = ast.parse(file.read())
    documented = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    return "\n\n".join(filter(None, map(ast.get_docstring, documented)))


def word_counts(
    corpus: dict[str, str], min_documents: int = 1, max_share: float = 1.0
) -> WordCounts:
    """Count the words that are neither rare nor everywhere.

    They occur in `min_documents` documents or more, and in at most that share of them.

    Words have three letters or more; scikit-learn's list of English stop words is left out.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(
        stop_words="english", token_pattern=r"[a-zA-Z]{3,}", min_df=min_documents, max_df=max_share
    )
    counts = counter.fit_transform(corpus.values()).toarray()
    kept = counts.sum(axis=1) > 0
    documents = [name for name, keep in zip(corpus, kept, strict=True) if keep]
    return WordCounts(documents, counter.get_feature_names_out().tolist(), counts[kept])
