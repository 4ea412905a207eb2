"""Whatever ends a run, the same call goes on from its checkpoint, to the same bits."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints

from emjax import EM, Status, Stream
from emjax.run import pieces
from emjax.run.archive import CHECKPOINT, Kind
from emjax.run.compiled import CompiledProgram

KEY = jax.random.key(1)
X = np.random.default_rng(0).normal(size=60) + np.repeat([0.0, 2.0, 4.0], 20)


def clusters(x, num=3):
    weights = numpyro.param("weights", jnp.ones(num) / num, constraint=constraints.simplex)
    loc = numpyro.param("loc", lambda key: jax.random.normal(key, (num,)))
    scale = numpyro.param("scale", jnp.ones(num), constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


PLAIN = EM(clusters, max_steps=60)
ACCELERATED = EM(
    clusters, acceleration="anderson", num_restarts=3, short_steps=10, init="subsets", max_steps=60
)
WITH_OPTAX = EM(
    clusters, m_step={"loc": optax.adam(0.1)}, polish="lbfgs", annealing=[2.0, 1.5], max_steps=30
)


def assert_same_bits(result, other):
    assert (result.status, result.findings) == (other.status, other.findings)
    leaves, others = jax.tree.leaves(result), jax.tree.leaves(other)
    assert len(leaves) == len(others)
    for leaf, one in zip(leaves, others, strict=True):
        np.testing.assert_array_equal(np.asarray(leaf), np.asarray(one))


class Killed(BaseException):
    pass


def killed_at(number, monkeypatch, kill):
    """Have so many files written, and `kill()` after the next one."""
    write, written = Kind.write, []

    def written_or_killed(kind, path, content):
        write(kind, path, content)
        written.append(path)
        if len(written) > number and not content["has_ended"]:
            kill()

    monkeypatch.setattr(Kind, "write", written_or_killed)


def kill():
    raise Killed


def killed_again_and_again(em, data, path, monkeypatch, num_saves=2):
    """Return the result of a run, and how often it was killed: after so many saves each time."""
    for kills in range(100):
        with monkeypatch.context() as patch:
            killed_at(num_saves, patch, kill)
            try:
                return em.run(KEY, data, checkpoint=path, every=4), kills
            except Killed:
                pass
    raise AssertionError("it does not go on from where it was")


@pytest.mark.parametrize("em", [ACCELERATED, WITH_OPTAX], ids=["accelerated starts", "optax"])
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bits(em, tmp_path, monkeypatch):
    whole = em.run(KEY, X, checkpoint=tmp_path / "whole", every=1000)
    path = tmp_path / "killed"
    result, kills = killed_again_and_again(em, X, path, monkeypatch)
    assert kills > 3
    assert_same_bits(result, whole)
    monkeypatch.setattr(CompiledProgram, "advance", None)
    assert_same_bits(em.run(KEY, X, checkpoint=path), whole)


ONLINE = EM(clusters, batch_size=20, max_steps=20)


def chunks():
    return iter([X[::2], X[1::2]])


def test_minibatches_and_passes_over_a_stream_that_is_killed_end_in_the_same_bits(
    tmp_path, monkeypatch
):
    whole = ONLINE.run(KEY, Stream(chunks), checkpoint=tmp_path / "whole", every=1000)
    path = tmp_path / "killed"
    result, kills = killed_again_and_again(ONLINE, Stream(chunks), path, monkeypatch, 1)
    assert kills > 3 and result.online == whole.online
    assert_same_bits(result, whole)
    others = Stream(lambda: iter([X[::2], X[1::2] + 1e-9]))
    with pytest.raises(ValueError, match="the data 'stream' has changed"):
        ONLINE.run(KEY, others, checkpoint=path)


def run_until_killed(path):
    """Run in a process of its own, which is killed while it writes its third checkpoint."""
    fsync, number = os.fsync, []

    def killed(descriptor):
        number.append(descriptor)
        # two for each file: of itself, and of its folder
        if len(number) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    os.fsync = killed
    PLAIN.run(KEY, X, checkpoint=path, every=5)


def test_the_last_whole_checkpoint_is_there_if_a_run_is_killed_while_it_writes(tmp_path):
    path, own = tmp_path / "killed", Path(__file__)
    script = (
        "import jax; jax.config.update('jax_enable_x64', True); "
        f"from tests.run.{own.stem} import run_until_killed; run_until_killed({str(path)!r})"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=own.parents[2])
    assert process.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    (place,) = CHECKPOINT.read(path)["places"]
    assert any(np.ndim(leaf) == 0 and leaf == 5 for leaf in place["leaves"])
    result = PLAIN.run(KEY, X, checkpoint=path, every=5)
    assert [each.name for each in tmp_path.iterdir()] == ["killed"]
    assert_same_bits(result, PLAIN.run(KEY, X, checkpoint=tmp_path / "whole", every=5))


# ── what cannot be gone on with ───────────────────────────────────────────────────────────────────


def other_clusters(x, num=3):
    clusters(x + 0.0, num)


@pytest.mark.parametrize(
    ("em", "key", "x", "given", "changed"),
    [
        (EM(other_clusters, max_steps=60), KEY, X, None, "the program has changed"),
        (PLAIN, KEY, X + 1e-9, None, "the data 'x' has changed"),
        (PLAIN, jax.random.key(2), X, None, "the key has changed"),
        (PLAIN, KEY, X, {"scale": np.ones(3)}, "init_params 'scale' was not there before"),
        (EM(clusters, max_steps=70), KEY, X, None, "the setting 'max_steps' was 60, and is 70"),
    ],
    ids=["program", "data", "key", "start", "setting"],
)
def test_a_checkpoint_of_another_run_is_refused(em, key, x, given, changed, tmp_path, monkeypatch):
    path = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(0, patch, kill)
        PLAIN.run(KEY, X, checkpoint=path)
    with pytest.raises(ValueError, match=rf"'{path}' is of another run: {changed}. Pass another"):
        em.run(key, x, checkpoint=path, init_params=given)


def test_what_is_no_checkpoint_is_refused_and_stays(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("Chapter 1")
    with pytest.raises(ValueError, match=r"thesis.txt' is no file that em.run\(..., checkpoint="):
        PLAIN.run(KEY, X, checkpoint=path)
    assert path.read_text() == "Chapter 1"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"checkpoint": 3}, "checkpoint takes the file"),
        ({"every": 10}, "every=10 says how often a checkpoint is saved, and there is none"),
        ({"checkpoint": "run", "every": 0}, "every must be a number of steps, every=100, or a"),
    ],
)
def test_what_is_no_path_and_no_number_of_steps_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        PLAIN.run(KEY, X, **arguments)


def test_a_folder_that_does_not_exist_is_said_before_anything_is_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot be written .* folder that exists"):
        PLAIN.run(KEY, X, checkpoint=tmp_path / "nowhere" / "run")


def test_where_the_disk_is_full_a_run_goes_on_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    path, fsync, number = tmp_path / "run", os.fsync, []

    def full(descriptor):
        number.append(descriptor)
        if len(number) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.warns(RuntimeWarning, match="No space left on device"):
            result = PLAIN.run(KEY, X, checkpoint=path, every=5)
    assert [finding.kind for finding in result.findings] == ["not saved"]
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    again = PLAIN.run(KEY, X, checkpoint=path, every=5)
    assert not again.findings
    np.testing.assert_array_equal(again.objective, result.objective)


# ── Ctrl-C ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def ctrl_c(monkeypatch):
    """Return what presses Ctrl-C, so many times, within the first piece from some step on."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals go to the main thread")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def at(step, times=1):
        advance, presses = CompiledProgram.advance, [None] * times

        def pressed(compiled, at, constants, stop_at):
            while presses and int(at.step) >= step:
                presses.pop()
                signal.raise_signal(signal.SIGINT)
            return advance(compiled, at, constants, stop_at)

        monkeypatch.setattr(CompiledProgram, "advance", pressed)

    yield at
    signal.signal(signal.SIGINT, before)


def test_an_interrupted_run_returns_where_it_stands_and_can_be_gone_on_with(
    tmp_path, ctrl_c, monkeypatch
):
    path = tmp_path / "run"
    ctrl_c(10)
    result = PLAIN.run(KEY, X, checkpoint=path, every=5)
    assert (result.status, result.num_steps) == (Status.INTERRUPTED, 15)
    assert "em.run(..., init_params=result.params)" in str(result)
    here = float(PLAIN.log_likelihood(result, X))
    np.testing.assert_allclose([result.objective[-1], result.log_likelihood], here, rtol=1e-12)
    monkeypatch.undo()
    result = PLAIN.run(KEY, X, checkpoint=path, every=5)
    assert result.status != Status.INTERRUPTED
    assert_same_bits(result, PLAIN.run(KEY, X, checkpoint=tmp_path / "whole", every=5))


def test_of_several_starts_that_are_interrupted_the_best_is_returned(ctrl_c, monkeypatch):
    # a run that takes long is in pieces, kept or not
    monkeypatch.setattr(pieces, "PIECE", 400)
    em = EM(clusters, num_restarts=3, short_steps=None, init="subsets", max_steps=60, tol=0)
    ctrl_c(2)
    result = em.run(KEY, X)
    assert result.status == Status.INTERRUPTED and not result.restarts.optima()
    assert list(result.restarts.status) == [Status.INTERRUPTED]


def test_ctrl_c_pressed_twice_raises(ctrl_c, monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 400)
    ctrl_c(2, times=2)
    with pytest.raises(KeyboardInterrupt):
        PLAIN.run(KEY, X)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_pass_over_a_stream_is_broken_off(tmp_path, ctrl_c, monkeypatch):
    passes = []

    def pressed():
        for number, rows in enumerate(chunks()):
            # the first are looks at the data
            if len(passes) == 8 and number == 1:
                signal.raise_signal(signal.SIGINT)
            yield rows
        passes.append(None)

    em = EM(clusters, max_steps=20)
    result = em.run(KEY, Stream(pressed, read_ahead=0), checkpoint=tmp_path / "run", every=1000)
    assert result.status == Status.INTERRUPTED and 0 < result.num_steps < 8
    here = float(em.log_likelihood(result, X))
    np.testing.assert_allclose([result.objective[-1], result.log_likelihood], here, rtol=1e-12)
    result = em.run(KEY, Stream(chunks), checkpoint=tmp_path / "run")
    assert_same_bits(result, em.run(KEY, Stream(chunks), checkpoint=tmp_path / "whole"))
