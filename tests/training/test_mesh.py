"""Any mesh trains as one device does, and what does not divide is refused."""

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from adakd_jax.config import MeshConfig
from adakd_jax.models.families import decoder_config
from adakd_jax.models.parameter_axes import PARAMETER_AXES
from adakd_jax.sharding import AXES, MeshError, check_model, make_mesh, parameter_spec, rules_of
from tests.own_process import told_by
from tests.training.conftest import tiny_config

HEAD = 64 * 16 * 4  # bytes of the tied embedding's gradient


@pytest.mark.slow
def test_any_mesh_gives_the_losses_of_one_device():
    found = told_by("-m", "tests.training.on_mesh", timeout=600)
    assert found["adakd"]["moved"] > 3  # the ratio, which all meshes must agree about
    errors = {name: told["errors"] for name, told in found.items()}
    assert set(errors["adakd"]) == {"data", "fsdp", "tensor", "own rules"}
    # With dropout: the same numbers are dropped.
    assert set(errors["adapters"]) == {"tensor"}
    assert set(errors["egad with adapters"]) == {"data", "tensor"}
    assert all(max(each.values()) < 1e-5 for each in errors.values()), errors
    # Two micro-batches, and one sum of gradients over `data`; along `fsdp` they are scattered.
    for each in ("adakd", "egad with adapters"):
        exchanged = found[each]["exchanged"]["data"]
        assert {times for kind, _, times in exchanged if kind != "all-gather"} == {1.0}, exchanged
    exchanged = found["adakd"]["exchanged"]
    assert ["reduce-scatter", HEAD / 8, 2.0] in exchanged["fsdp"], exchanged["fsdp"]


def test_one_device_has_no_mesh():
    assert make_mesh(MeshConfig(), jax.devices()[:1]) is None


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"fsdp": 2}, r"data 1 × fsdp 2 × tensor 1 is 2 devices, but there are 1"),
        ({"data": 1, "slices": 2}, r"mesh.slices: 2 slices do not divide data = 1; valid: 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(MeshError, match=message):
        make_mesh(MeshConfig(**sizes), jax.devices()[:1])


def test_models_that_do_not_divide_are_refused_with_what_would():
    config = decoder_config(tiny_config(2))  # 2 heads, 1 key-value head, width 16, vocabulary 61
    mesh = AbstractMesh((1, 8, 2), AXES)
    rules = rules_of(MeshConfig(), "student")
    with pytest.raises(MeshError) as refused:
        check_model(config, mesh, rules, "student")
    told = str(refused.value)
    assert "student: 61 vocab cannot be split over tensor = 2; valid: tensor one of 1, 61" in told
    assert "student: 1 kv_heads cannot be split over tensor = 2; valid: tensor one of 1," in told
    assert "embed" not in told and "ffw" not in told
    own = rules_of(MeshConfig(student_rules={"vocab": None, "kv_heads": None}), "student")
    check_model(config, mesh, own, "student")


def test_every_parameter_has_a_split_that_names_each_mesh_axis_once():
    for who in ("student", "teacher"):
        rules = rules_of(MeshConfig(), who)
        for path in PARAMETER_AXES:
            spec = parameter_spec(path, rules)
            assert isinstance(spec, PartitionSpec)
            named = [axis for axis in spec if axis is not None]
            assert len(named) == len(set(named)), path
