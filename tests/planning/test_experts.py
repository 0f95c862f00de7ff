"""Plans of models with experts: what is counted is what active experts compute."""

import pytest

from adakd_jax.planning.compile import plan_for
from adakd_jax.planning.hardware import read_topology
from adakd_jax.planning.hlo import read_program
from adakd_jax.planning.inputs import chunks_of_micro_batch, mesh_of, shapes_for, with_chunks
from adakd_jax.planning.products import compiled_operations
from adakd_jax.planning.work import step_operations
from adakd_jax.sharding import entered
from adakd_jax.training.dry_run import abstract_step
from tests.planning.conftest import STUDENT, TEACHER

ROWS, LENGTH = 8, 128
OF = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2}
TAUGHT, LEARNING = (
    hf | OF | {"hidden_size": 64, "moe_intermediate_size": 96} for hf in (TEACHER, STUDENT)
)


@pytest.fixture
def settings(planned):
    def make(topology="cpu:1", *, taught=TAUGHT, learning=LEARNING, **changes):
        return planned(
            topology,
            teacher={"path": "nobody/teacher", "architecture": taught},
            student={"kind": "random", "config": learning, "remat": "dots"},
            **changes,
        )

    return make


def test_experts_that_a_token_has_count_and_others_do_not(settings):
    """Four more experts cost their router alone, 2·D a token each; one more of them active, its
    three matrices.
    """
    other = TAUGHT | {"num_experts": 8, "num_experts_per_tok": 3}
    once, more = (
        step_operations(settings(taught=taught), (1, ROWS)).needed for taught in (TAUGHT, other)
    )
    router, expert = 2 * 64 * 4, 2 * 3 * 64 * 96
    assert more - once == pytest.approx(3 * ROWS * LENGTH * (router + expert), rel=1e-9)


@pytest.mark.slow
def test_the_count_is_that_of_the_compiled_program(settings):
    """Where experts are computed in blocks, within what fills these up."""
    config, topology, layout = settings(), read_topology("cpu:1"), (1, ROWS)
    mesh = mesh_of(config, topology)
    config = with_chunks(config, topology, layout, mesh)
    step, arguments = abstract_step(config, shapes_for(config, topology, layout), mesh)
    with entered(mesh):
        program = read_program(step.lower(*arguments).compile().as_text())
    rounds = chunks_of_micro_batch(config, layout, mesh)
    by = {"teacher": "xla", "student": "xla"}
    counted = step_operations(config, layout, by).executed
    assert compiled_operations(program, rounds) == pytest.approx(counted, rel=0.15)


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
def test_a_tpu_computes_its_own_experts(settings):
    """One kernel for each product, and no kernel of all experts crosses the mesh."""
    config = settings("v5e-8", mesh={"expert": 4, "fsdp": 2})
    plan = plan_for(config, read_topology("v5e-8"))
    assert plan.mesh == {"data": 1, "fsdp": 2, "expert": 4, "tensor": 1}
    assert plan.rows_per_device == 1 and "active" in plan.models["teacher"]
    assert plan.collectives is not None
    shared = {one.kind for one in plan.collectives if one.axes == ("expert",)}
    assert {"all-gather", "reduce-scatter"} & shared
