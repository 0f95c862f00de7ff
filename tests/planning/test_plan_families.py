"""Published models of other families are planned for like Llama."""

import io
import json

import pytest
from rich.console import Console

from adakd_jax.planning.command import run_plans
from tests.models.published import PUBLISHED


@pytest.mark.slow
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("name", ["Phi-4 mini", "Olmo 3 7B", "OLMoE 1B-7B"])
def test_a_published_model_is_planned_for(name, planned, tmp_path):
    published = PUBLISHED[name]
    whole = dict(published.hf_config)
    student = whole | {"num_hidden_layers": 4}
    file = tmp_path / "plan.json"
    config = planned(
        "v5e:4x4",
        teacher={"path": "nobody/teacher", "architecture": whole},
        student={"kind": "random", "config": student, "remat": "full"},
        training={"steps": 100, "batch_rows": 16},
        mesh={"fsdp": 16},
        json=str(file),
    )
    assert run_plans(config, search=False, console=Console(file=io.StringIO()))
    [plan] = json.loads(file.read_text())
    assert f"{published.parameters / 1e6:,.0f}" in plan["models"]["teacher"].replace(".", "")[:40]
    assert plan["operations"]["needed"] > 0
