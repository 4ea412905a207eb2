"""A fit that was saved, as one that can be asked again."""

from __future__ import annotations

import os
from dataclasses import fields

from emjax.answers.restored import Saved
from emjax.em import EM
from emjax.fit import Fit
from emjax.graph.factor_graph import FactorGraph
from emjax.run.annotations import Path, Program
from emjax.run.archive import FIT
from emjax.run.bound import Bound
from emjax.run.settings import Settings


def load(path: Path, program: Program | EM) -> Fit:
    """Return a fit that `fit.save(path)` has saved: it answers as it did then, to the last bit.

    `program`: the one that was fitted, which then has the settings that were saved; or its `EM`,
    which is needed where settings are code (an optax optimizer, a NumPyro strategy). Data that are
    not in the file (`fit.save(path, data=True)`) are given to what is asked: `fit.posterior(x)`. A
    fit in double precision is loaded in single where JAX has only that.

    Errors: `ValueError` for another program, for a file that is none, is cut short or of a later
    version.

    ```python
    fit = EM(coins).run(jax.random.key(0), heads)
    fit.save("fit.emjax")
    fit = emjax.load("fit.emjax", coins)
    fit.posterior(heads)
    ```
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError("emjax.load takes the file first: emjax.load('fit.emjax', program).")
    saved = Saved(FIT.read(path))
    if isinstance(program, EM):
        em = program
        saved.check_settings(em.settings)
    else:
        em = EM(program, **saved.settings({field.name for field in fields(Settings)}))
    bound = _bound(em, saved)
    graph = None if bound is None else _graph(bound)
    if graph is not None:
        saved.check_program(graph)
    return Fit.of(em, bound if saved.has_data else None, saved.result(graph))


def _bound(em: EM, saved: Saved) -> Bound | None:
    """Return the program on the data that were saved, or on data of such shapes."""
    arguments = saved.arguments
    if arguments is None:
        return None
    args, kwargs = arguments
    return em.on(*args, **kwargs)


def _graph(bound: Bound) -> FactorGraph | None:
    """Return the factor graph of a program on its data; None where it depends on their values."""
    try:
        graph = bound.in_its_precision(lambda bound: bound.graph)
    except TypeError as error:
        raise ValueError(
            "This program does not take the arguments of the one that was fitted: "
            f"{error.__cause__ or error}."
        ) from error
    except ValueError as error:
        # of zeros, which tell nothing
        if bound.compiler.looks_at_values:
            return None
        raise ValueError(f"Of data of the shapes that were fitted: {error}") from error
    return None if bound.compiler.looks_at_values else graph
