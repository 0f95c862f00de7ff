"""Which meshes, remats and rows a search compiles for, and what it takes; plans by formula."""

import dataclasses
import io
import math

import pytest
from jax.sharding import AbstractMesh

from adakd_jax.console import Console
from adakd_jax.planning import search
from adakd_jax.planning.hardware import GIB, read_topology
from adakd_jax.planning.inputs import layout_of
from adakd_jax.planning.memory import Memory
from adakd_jax.planning.roofline import Roofline
from adakd_jax.planning.search import most_rows, search_for
from adakd_jax.sharding import AXES
from tests.planning.conftest import refused_plan

KEPT = {"none": 40.0, "dots": 24.0, "full": 14.0}
SECONDS = {"none": 1.0, "dots": 2.0, "full": 3.0}


def by_formula(per_row):
    """In place of a compilation on 16 devices; half of what is kept is split over `fsdp` > 1."""
    start = refused_plan()
    capacity = start.memory.capacity

    def plan_for(config, _):
        fsdp, tensor = config.mesh.fsdp, config.mesh.tensor
        sizes = (16 // (fsdp * tensor), fsdp, tensor)
        layout = layout_of(config, AbstractMesh(sizes, AXES))
        plan = dataclasses.replace(
            start,
            mesh=dict(zip(AXES, sizes, strict=True)),
            layout=layout,
            remat=config.student.remat,
            roofline=Roofline(SECONDS[config.student.remat] * math.prod(layout) * tensor, 0, 0, 0),
        )
        split = 0.5 if fsdp > 1 else 1.0
        total = (KEPT[plan.remat] * split + per_row * plan.rows_per_device) * GIB
        return dataclasses.replace(plan, memory=Memory({"all": total}, capacity, total <= capacity))

    return plan_for


def searched(planned, monkeypatch, per_row):
    monkeypatch.setattr(search, "plan_for", by_formula(per_row))
    config = planned("v5e-16", training={"steps": 9, "batch_rows": 64})
    return search_for(config, read_topology("v5e-16"), Console(file=io.StringIO()))


@pytest.mark.usefixtures("libtpu")
def test_the_fastest_that_fits_is_taken_and_filled(planned, monkeypatch):
    config, plan = searched(planned, monkeypatch, 0.5)
    # On one part of the weights nothing fits; over 16, `dots` does: 12 + 4 rows of 0.5.
    assert (config.mesh.fsdp, config.mesh.tensor, config.student.remat) == (16, 1, "dots")
    assert plan.remat == "dots" and plan.layout == (1, 64) and plan.memory.fits
    assert plan.most_rows == 7


@pytest.mark.usefixtures("libtpu")
def test_a_batch_that_does_not_fit_is_split(planned, monkeypatch):
    config, plan = searched(planned, monkeypatch, 4.0)
    # 7 + 4 rows of 4 do not fit, one row does; with `dots`, it would be 12 + 4.
    assert plan.memory.fits and plan.remat == "full" and plan.most_rows == 2
    assert config.training.micro_batch_rows == plan.layout[1] and plan.layout[0] > 1
    assert plan.rows_per_device == 1


@pytest.mark.parametrize(
    ("fixed", "per_row", "most"), [(3.0, 0.5, 25), (9.0, 1.0, 6), (15.0, 0.1, 7)]
)
def test_the_most_rows_are_found_along_a_line(fixed, per_row, most):
    start = refused_plan()
    capacity = start.memory.capacity
    compiled = []

    def plan(rows):
        compiled.append(rows)
        total = (fixed + rows * per_row) * GIB
        memory = Memory({"all": total}, capacity, total <= capacity)
        return dataclasses.replace(start, memory=memory, layout=(1, 16 * rows))

    assert most_rows(plan(4), plan) == most
    assert len(compiled) <= 6
