"""The tutorials are programs: each runs by itself, and is short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs_by_itself_and_is_short(path, tmp_path):
    assert len(path.read_text().splitlines()) < 40
    # as its reader runs it: in JAX's own precision, without what the tests set
    plain = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    ran = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=plain,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()
