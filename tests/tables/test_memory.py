"""What a machine cannot hold is an error that says whose fault it is, on any system."""

import os

import pytest

from emjax.tables.indices import Affine
from emjax.tables.lifting import check_memory
from emjax.tables.named import Axis

HUGE = (2**30, 2**30)


def test_a_joint_table_that_is_too_large_names_its_latents():
    axes = [Axis("z", 2**30, Affine(0, ())), Axis("y", 2**30, Affine(0, ()))]
    with pytest.raises(MemoryError, match="joint table of latents 'z', 'y' needs"):
        check_memory(axes, HUGE)


def test_a_table_of_rows_that_is_too_large_blames_no_latent():
    with pytest.raises(MemoryError, match=r"A table of shape \(1073741824, 1073741824\) needs"):
        check_memory([Axis(None, 2**30, Affine(0, ()))], HUGE)


def test_a_system_that_does_not_tell_its_memory_has_no_limit(monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    check_memory([Axis("z", 2, Affine(0, ()))], HUGE)
