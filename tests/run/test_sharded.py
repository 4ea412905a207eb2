"""Runs on several devices and in several processes are those on one."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from tests.run import sharded_runs

SCRIPT = Path(__file__).with_name("sharded_runs.py")


def started(*arguments, num_devices=1):
    """Return a process that runs the script."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = {**os.environ, "XLA_FLAGS": flags}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def printed(process):
    """Return what a process of the script has found."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])


def test_runs_on_two_and_four_devices_are_those_on_one():
    """Parameters and posteriors, of all kinds of programs, to rounding; rows need not divide.

    XLA makes one sum over devices of each step, and gathers nothing; the work of each of four
    devices is a quarter.
    """
    found = printed(started(num_devices=4))
    assert len(found["runs"]) == 7
    for run in found["runs"].values():
        assert max(run["params"] + run.get("posterior", [])) < 1e-10
        assert len(set(run.get("status", ["same"]))) == 1
    assert found["hlo"]["collectives"] == ["all-reduce"]
    assert max(found["hlo"]["part"].values()) < 1.1 / 4


def test_runs_in_two_processes_are_those_in_one():
    """Each has half of the data; both find what one does that has all."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [started(port, number) for number in (0, 1)]
    found = [printed(process) for process in processes]
    assert found[0] == found[1]
    em, (x,), _, _ = sharded_runs.problems()["mixture"]
    init = sharded_runs.START
    alone = em.run(jax.random.key(0), x, init_params=init)
    assert found[0]["status"] == str(alone.status)
    for name, value in alone.params.items():
        np.testing.assert_allclose(found[0]["params"][name], value, rtol=1e-10)
    np.testing.assert_allclose(found[0]["log_likelihood"], alone.log_likelihood, rtol=1e-12)
