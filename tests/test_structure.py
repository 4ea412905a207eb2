"""What the code may import, what happens at import, and that every example in the documentation
runs.
"""

import ast
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError

import emjax
import emjax.plot
import emjax.sklearn
from emjax.e_step.e_step import log_partition_of

ROOT = Path(__file__).resolve().parent.parent
ENGINE = sorted((ROOT / "inference").rglob("*.py"))
MODELS = sorted((ROOT / "models").rglob("*.py"))
ESTIMATORS = sorted((ROOT / "estimators").rglob("*.py"))
TRACKED = [
    *ENGINE,
    *MODELS,
    *ESTIMATORS,
    *sorted((ROOT / "experiments").rglob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
]
MODEL_WORDS = {
    "annotator",
    "annotators",
    "coin",
    "coins",
    "gaussian_mixture",
    "gmm",
    "hmm",
    "topics",
    "plsa",
    "lda",
    "k_means",
    "kmeans",
    "grades",
    "dawid_skene",
    "latent_class",
    "confusion",
}
CODE_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> set[str]:
    """The dotted names of the modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


# ── imports ───────────────────────────────────────────────────────────────────────────────────────


def floors() -> list[list[str]]:
    """The rooms of the engine, floor by floor, in the order in which data flow through them: the
    table of the design page.
    """
    rows = [
        line.split("|")[1]
        for line in (ROOT / "docs" / "design.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    return [re.findall(r"`([\w/]+)/`", row) for row in rows]


ROOMS = [room for floor in floors() for room in floor]


def room_of(path: Path) -> str:
    return path.parent.relative_to(ROOT / "inference").as_posix()


def files_in_order(room: str) -> list[str]:
    """The files of a room, in the order that the docstring of the room states."""
    text = ast.get_docstring(tree(ROOT / "inference" / room / "__init__.py")) or ""
    text = " ".join(text.split())
    assert "Each file imports only those before it:" in text, room
    return re.findall(r"\w+", text.split("Each file imports only those before it:")[1])


def modules_used(path: Path) -> set[Path]:
    """The files of the engine that a file imports."""
    found = set()
    for name in imported(path):
        own = ROOT.joinpath("inference", *name.split(".")[1:]).with_suffix(".py")
        if name.startswith("emjax.") and own in ENGINE:
            found.add(own)
    return found


FIRST_BEHIND_THE_FRONT_DOOR = "refits"


def test_imports_between_rooms_point_up_the_table_of_the_design_page():
    assert sorted(ROOMS) == sorted({room_of(path) for path in ENGINE} - {"."})
    front = next(
        number for number, rooms in enumerate(floors()) if FIRST_BEHIND_THE_FRONT_DOOR in rooms
    )
    floor_of = {
        room: number + (number >= front) for number, rooms in enumerate(floors()) for room in rooms
    } | {".": front}
    for path in ENGINE:
        below = {
            used.as_posix()
            for used in modules_used(path)
            if floor_of[room_of(used)] > floor_of[room_of(path)]
        }
        assert not below or path == ROOT / "inference" / "__init__.py", (
            f"{path} imports {sorted(below)}, which the table has below it"
        )


def test_every_room_is_installed():
    # an editable installation finds those that are not listed, too
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = {f"emjax.{room.replace('/', '.')}" for room in ROOMS}
    assert set(listed) == {"emjax", "emjax.models", "emjax.sklearn", *rooms}


def test_no_file_imports_itself_by_way_of_others():
    needs = {path: modules_used(path) for path in ENGINE}
    settled: set[Path] = set()
    while ready := {
        path for path, others in needs.items() if path not in settled and others <= settled
    }:
        settled |= ready
    assert settled == set(needs), f"these import each other: {sorted(set(needs) - settled)}"


@pytest.mark.parametrize("room", ROOMS)
def test_imports_within_a_room_are_in_the_order_that_it_states(room):
    order = files_in_order(room)
    files = {
        path.stem: path for path in ENGINE if room_of(path) == room and path.stem != "__init__"
    }
    assert sorted(order) == sorted(files)
    for name, path in files.items():
        own = {used.stem for used in modules_used(path) if room_of(used) == room}
        assert own <= set(order[: order.index(name)]), f"{room}/{name} imports {sorted(own)}"


def test_picture_of_the_rooms_shows_the_imports():
    drawn = [sys.executable, ROOT / "docs" / "rooms.py", "--check"]
    assert subprocess.run(drawn).returncode == 0, "run `python docs/rooms.py`"


def test_engine_knows_no_model():
    for path in ENGINE:
        assert not any(name.startswith("emjax.models") for name in imported(path)), path.name
        for node in ast.walk(tree(path)):
            used = {getattr(node, field, None) for field in ("id", "attr", "arg", "name")}
            assert not {str(name).lower() for name in used if name} & MODEL_WORDS, (
                f"{path.name}:{node.lineno}"
            )


def test_models_and_estimators_use_public_names_only():
    public = {"emjax", "emjax.distributions", *(f"emjax.{name}" for name in emjax.__all__)}
    for path in [*MODELS, *ESTIMATORS]:
        if path in ESTIMATORS:
            public |= {"emjax.models", "emjax.sklearn"}
        ours = {name for name in imported(path) if name.split(".")[0] in ("emjax", "inference")}
        assert {".".join(name.split(".")[:2]) for name in ours} <= public, path.name
        for name in ours:
            assert not name.split(".")[-1].startswith("_"), path.name


def test_engine_is_imported_as_emjax_alone():
    for path in TRACKED:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {"inference", "models", "estimators"}, path.name
    assert not (ROOT / "inference" / "models.py").exists()
    assert not (ROOT / "inference" / "models").exists()


def test_engine_and_models_never_import_tests_or_experiments():
    for path in [*ENGINE, *MODELS]:  # estimators are of scikit-learn
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {
            "tests",
            "experiments",
            "pytest",
            "hypothesis",
            "sklearn",
            "funsor",
        }, path.name
        assert "matplotlib" not in roots or path.parent.name == "plot", path.name


def by_hand(path: Path) -> list[ast.FunctionDef]:
    """The updates derived by hand in a file, and every function of the file that they call."""
    functions = {node.name: node for node in tree(path).body if isinstance(node, ast.FunctionDef)}
    reached = [name for name in functions if name.endswith("hand_derived_step")]
    for name in reached:
        called = {
            node.id for node in ast.walk(functions[name]) if isinstance(node, ast.Name)
        } & set(functions)
        reached += [other for other in sorted(called) if other not in reached]
    return [functions[name] for name in reached]


@pytest.mark.parametrize(
    "path", [path for path in MODELS if path.stem != "__init__"], ids=lambda path: path.stem
)
def test_update_by_hand_uses_numpy_alone(path):
    found = by_hand(path)
    assert any(function.name.endswith("hand_derived_step") for function in found)
    for function in found:
        body = ast.Module(body=function.body, type_ignores=[])  # its annotations may say more
        used = {node.id for node in ast.walk(body) if isinstance(node, ast.Name)}
        assert not used & {
            "jax",
            "jnp",
            "numpyro",
            "dist",
            "constraints",
            "emjax",
            "scipy",
            "sklearn",
            "program",
        }, function.name


# ── names ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "path", [*ENGINE, *MODELS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_everything_public_has_a_docstring(path):
    module = tree(path)
    assert ast.get_docstring(module), path
    for node in module.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        is_exported = node.name in emjax.__all__ or path in MODELS
        assert ast.get_docstring(node) or not is_exported, f"{path.name}: {node.name}"
        if isinstance(node, ast.ClassDef) and node.name in emjax.__all__:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    assert ast.get_docstring(method), f"{path.name}: {node.name}.{method.name}"


def test_file_names_say_what_is_in_them():
    forbidden = {"utils", "util", "helpers", "common", "base", "manager", "misc"}
    assert not {path.stem for path in TRACKED} & forbidden


def test_public_names_exist_and_the_package_is_typed():
    for name in emjax.__all__:
        assert hasattr(emjax, name)
    assert (ROOT / "inference" / "py.typed").exists()
    assert (Path(emjax.__file__).parent / "py.typed").exists()


# ── import ────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_happens_at_import():
    program = """
import jax, jax.monitoring, os, sys
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **kwargs: compiled.append(event)
)
before, files = dict(jax.config.values), set(os.listdir('.'))
drawn = []
for module in (jax.random,):
    for name in ('key', 'PRNGKey'):
        original = getattr(module, name)
        def recorded(*args, original=original, **kwargs):
            drawn.append(args)
            return original(*args, **kwargs)
        setattr(module, name, recorded)
import emjax, emjax.models
from emjax.models import coins
changed = {k: v for k, v in jax.config.values.items() if before.get(k) != v}
assert dict(jax.config.values) == before, changed
assert not jax.config.jax_enable_x64
assert set(os.listdir('.')) == files
assert not [event for event in compiled if event.endswith('backend_compile_duration')], compiled
assert not drawn
assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules
"""
    environment = {key: value for key, value in os.environ.items() if key != "JAX_ENABLE_X64"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


# ── types ─────────────────────────────────────────────────────────────────────────────────────────


def test_annotations_are_executed(request):
    if not request.config.getoption("jaxtyping_packages"):
        pytest.skip("run without --jaxtyping-packages")
    with pytest.raises(TypeCheckError):
        emjax.EMState(params=1.5, optimizer=())
    with pytest.raises(TypeCheckError):
        log_partition_of(None, [])


# ── documentation ─────────────────────────────────────────────────────────────────────────────────


def pages() -> list[Path]:
    return [
        path
        for path in (
            ROOT / "README.md",
            ROOT / "CONTRIBUTING.md",
            *sorted((ROOT / "docs").glob("*.md")),
        )
        if CODE_BLOCK.search(path.read_text())
    ]


def run_blocks(text: str, where: str, namespace: dict) -> None:
    """Run the blocks tagged `python` in order, in one namespace."""
    for block in CODE_BLOCK.findall(text):
        exec(compile(block, where, "exec"), namespace)


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_code_of_the_documentation_runs(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    run_blocks(path.read_text(), path.name, {"__name__": path.stem})


def test_every_public_name_is_in_the_reference():
    named = set()
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        module = ""
        for line in page.read_text().splitlines():
            directive, _, name = line.partition(":: ")
            if directive == ".. currentmodule":
                module = name
            elif directive.startswith(".. auto"):
                named.add(f"{module}.{name}")
            # shapes of conjugacy are constants, which a table lists
            elif line.startswith("| `"):
                listed = re.findall(r"`(\w+)`", line.split("|")[1])
                named |= {f"emjax.conjugate.{constant}" for constant in listed}
    modules = emjax, emjax.conjugate, emjax.distributions, emjax.plot, emjax.sklearn
    public = {f"{module.__name__}.{name}" for module in modules for name in module.__all__}
    public -= {"emjax.conjugate", "emjax.distributions"}
    assert public <= named, sorted(public - named)


def documented() -> list[tuple[str, str]]:
    found = []
    for path in ENGINE:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or ""
                if CODE_BLOCK.search(text):
                    found.append((f"{path.stem}.{getattr(node, 'name', '')}", text))
    return found


EXAMPLE = """
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions import constraints
import emjax
from emjax import *
from emjax.distributions import *
from emjax.models.coins import program as coins
heads = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])
pi, mu, sigma, score = 0.4, 0.5, 0.1, jnp.array(0.3)
"""


@pytest.mark.parametrize(
    "name, text",
    documented(),
    ids=lambda value: value if "." in value and "\n" not in value else "",
)
def test_code_of_a_docstring_runs(name, text, monkeypatch, tmp_path):
    # an excerpt may write a file
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    exec(EXAMPLE, namespace)
    with namespace["handlers"].seed(rng_seed=0):  # an excerpt of a program may sample
        run_blocks(inspect.cleandoc(text), name, namespace)
