"""The pages of models, `docs/models/*.md` and their pictures, from the model files.

A page is the docstring of a model, its programs and hand-derived updates as they stand in the file,
and a fit with its graph, its plan and a picture (`model_fits.py`). All fits run in one process, so
that JAX is imported once. A page that was written from the same sources is left alone.
"""

import gc
import hashlib
import inspect
import re
import struct
import textwrap
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

# the lecture that derives a model's update in full
LECTURES = {
    "annotators": "annotators",
    "coins": "coins",
    "gaussian_mixture": "mixtures",
    "grades": "grades",
    "hidden_markov": "hidden_markov",
    "k_means": "mixtures",
    "motif": "motifs",
    "topics": "topics",
}
FOLDER = Path(__file__).resolve().parent / "models"
MODELS = FOLDER.parents[1] / "models"
STYLE = FOLDER.with_name("matplotlibrc")
RESOLUTION = 160  # pixels per inch of a picture, which is shown at 96
SAID_FIRST = re.compile(r"^(E-step|M-step|Rate|Source|Term frequencies)(?=[.:,])", re.MULTILINE)
NUMBERED = re.compile(r"^(.*?) {2,}(\(\d+'?\))$")

PAGE = """{made_from}
# {title}

{lead} This is `emjax.models.{name}`{lecture}.

{graph}

{text}

## The program

{programs}

## The plan

{plan}

## A fit

{fit}

{picture}

## The update, derived by hand

It is NumPy alone, and imports nothing of emjax. Tests hold EM to it over 50 steps, to 1e-10.

{steps}
"""


def write() -> None:
    """Write the page of each model that is not up to date."""
    for name in names():
        if not is_up_to_date(name):
            (FOLDER / f"{name}.md").write_text(page_of(name))


def names() -> list[str]:
    """Return the names of all model files."""
    return sorted(path.stem for path in MODELS.glob("*.py") if path.stem != "__init__")


def is_up_to_date(name: str) -> bool:
    """Say whether the page of a model was written from the sources that there are."""
    page = FOLDER / f"{name}.md"
    return page.exists() and page.read_text().split("\n", 1)[0] == made_from(name)


def made_from(name: str) -> str:
    """Return the first line of a page, which tells one version of its sources from another."""
    here = Path(__file__).resolve()
    sources = [MODELS / f"{name}.py", here, here.with_name("model_fits.py")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources))
    return f"% made from {digest.hexdigest()}"


def page_of(name: str) -> str:
    """Return the page of a model, having drawn its pictures."""
    module = import_module(f"emjax.models.{name}")
    first, _, rest = inspect.getdoc(module).partition("\n\n")
    title, _, question = " ".join(first.split()).partition(": ")
    fit, shown, plan = drawn(name)
    return PAGE.format(
        made_from=made_from(name),
        title=title,
        name=name,
        lead=question[0].upper() + question[1:],
        lecture=lecture_of(name),
        graph=image(name, "graph", "The graph, and how each parameter is maximized."),
        text=markdown(rest),
        programs=sources_of(module, "program"),
        plan=fenced(plan, "text"),
        fit=fenced(shown, "python"),
        picture=image(name, "fit", fit),
        steps=sources_of(module, "hand_derived_step"),
    )


def drawn(name: str) -> tuple[str, str, str]:
    """Return the caption, the code and the plan of a fit, whose graph and picture are drawn."""
    import jax
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import model_fits

    from emjax import plot

    if (function := getattr(model_fits, name, None)) is None:
        raise ValueError(
            f"docs/model_fits.py draws no fit of '{name}': add a function of that name."
        )
    style = matplotlib.rc_context(fname=STYLE)
    with jax.enable_x64(True), style, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = function()
        save(plt.gcf(), name, "fit")
        plot.graph(fit)
        save(plt.gcf(), name, "graph")
        plan = str(fit.plan())
    return " ".join(inspect.getdoc(function).split()), body_of(function), plan


def save(figure, name: str, what: str) -> None:
    """Save a figure beside the pages, and close it."""
    import matplotlib.pyplot as plt

    figure.savefig(FOLDER / f"{name}_{what}.png", dpi=RESOLUTION, bbox_inches="tight")
    plt.close(figure)


def body_of(function: Callable) -> str:
    """Return the code of a fit as a reader runs it: imports, then its lines but the last."""
    lines = inspect.getsource(function).splitlines()
    end_of_docstring = max(k for k, line in enumerate(lines) if line.rstrip().endswith('"""'))
    body = textwrap.dedent("\n".join(lines[end_of_docstring + 1 : -1]))
    imports = ["import jax"]
    if "jnp." in body:
        imports.append("import jax.numpy as jnp")
    if "plt." in body:
        imports.append("import matplotlib.pyplot as plt")
    if "np." in body.replace("jnp.", ""):
        imports.append("import numpy as np")
    of_emjax = "EM, plot" if "plot." in body.replace("plt.plot", "") else "EM"
    return "\n".join([*imports, "", f"from emjax import {of_emjax}", body.lstrip("\n")])


def lecture_of(name: str) -> str:
    """Return a link to the lecture about a model, if there is one."""
    if name not in LECTURES:
        return ""
    return f"; its update is derived in [the lecture](../tutorials/{LECTURES[name]}.md)"


def image(name: str, what: str, caption: str) -> str:
    """Return a picture, which keeps its white ground in the dark."""
    file = FOLDER / f"{name}_{what}.png"
    # the width stands in the head of every PNG
    (pixels,) = struct.unpack(">I", file.read_bytes()[16:20])
    options = f":class: on-paper\n:alt: {caption}\n:align: center\n"
    options += f":width: {pixels * 96 // RESOLUTION}px"
    return f"```{{figure}} {file.name}\n{options}\n\n{caption}\n```"


def markdown(docstring: str) -> str:
    """Return the text of a docstring, where blocks that are indented stand as they are."""
    parts: list[str] = []
    for paragraph in paragraphs(docstring):
        if paragraph.startswith(" "):
            parts.append(fenced(narrowed(textwrap.dedent(paragraph)), "text"))
        else:
            parts.append(SAID_FIRST.sub(r"**\1**", paragraph))
    return "\n\n".join(parts)


def narrowed(block: str) -> str:
    """Return formulas with their numbers as near as the longest formula lets them."""
    lines = [NUMBERED.match(line) or line for line in block.splitlines()]
    width = max([len(line[1]) for line in lines if isinstance(line, re.Match)], default=0)
    return "\n".join(
        line if isinstance(line, str) else f"{line[1]:{width}}  {line[2]:>4}" for line in lines
    )


def paragraphs(docstring: str) -> Iterator[str]:
    """Yield runs of lines that are indented alike: text, or a block with its blank lines."""
    run: list[str] = []
    for line in docstring.splitlines():
        is_block, was_block = line.startswith("   "), bool(run) and run[0].startswith("   ")
        if run and line.strip() and is_block != was_block:
            yield "\n".join(run).strip("\n")
            run = []
        run.append(line)
    yield "\n".join(run).strip("\n")


def fenced(code: str, language: str) -> str:
    """Return code in a fence."""
    return f"```{language}\n{code.strip(chr(10))}\n```"


def sources_of(module: ModuleType, suffix: str) -> str:
    """Return the functions of a model that are called so, and what they call of it."""
    of_module = {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__
    }
    wanted = [name for name in of_module if name.endswith(suffix)]
    for name in wanted:
        called = of_module[name].__code__.co_names
        wanted += [
            each for each in called if each in of_module and each not in wanted and keeps(each)
        ]
    sources = [inspect.getsource(of_module[name]).rstrip() for name in of_module if name in wanted]
    return fenced("\n\n\n".join(sources), "python")


def keeps(name: str) -> bool:
    """Say whether a function that a program calls is more than a check of its arguments."""
    return not name.startswith("_check")


if __name__ == "__main__":
    # programs that are traced are no garbage, and are searched for it again and again
    gc.set_threshold(100_000, 20, 20)
    write()
