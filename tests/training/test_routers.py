"""A student of experts: the load-balancing loss, frozen routers, and what is reported."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from adakd_jax.config import (
    AllTokens,
    DistillConfig,
    FixedTemperature,
    MeshConfig,
    OptimizerConfig,
)
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.models import abstract_decoder, decoder_config, random_params
from adakd_jax.models.experts import Routing
from adakd_jax.sharding import MeshError, check_expert_axis, check_model, make_mesh, rules_of
from adakd_jax.training.checks import check_models
from adakd_jax.training.optimizer import build_optimizer
from adakd_jax.training.records import read_records
from adakd_jax.training.routers import balance_loss, router_report
from adakd_jax.training.step import make_train_step
from tests.hf.tiny import make_pretrained, tiny_teacher
from tests.own_process import told_by
from tests.training.conftest import Pair, random_batch, tiny_config
from tests.training.tiny_run import run

PLAIN = DistillConfig(focus=AllTokens(), temperature=FixedTemperature())
ADAMW = OptimizerConfig(learning_rate=2e-2, schedule="constant", weight_decay=0.1)
OF = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2}
SIZES = OF | {"moe_intermediate_size": 12, "norm_topk_prob": True, "head_dim": 8}
RNG = np.random.default_rng(0)
METRICS = {"balance_loss", "most_loaded_expert", "least_loaded_expert", "router_entropy"}


@pytest.fixture(scope="module")
def pair():
    teacher, student = (decoder_config(tiny_config(layers) | SIZES) for layers in (3, 2))
    return Pair(
        abstract_decoder(teacher)[0],
        random_params(teacher, jax.random.key(1)),
        abstract_decoder(student)[0],
        random_params(student, jax.random.key(2)),
    )


@pytest.fixture(scope="module")
def trained(pair):
    """The last state, and the metrics of all steps; each program is compiled once."""
    steps = {}

    def run(batches, *, trains_router=True):
        parts = pair.parts(PLAIN, ADAMW)._replace(
            balance_weight=0.1,
            trains_router=trains_router,
            optimizer=build_optimizer(ADAMW, PLAIN, 20, trains_router=trains_router),
        )
        step = steps.setdefault(trains_router, make_train_step(parts))
        state, history = pair.state(parts), []
        for batch in batches:
            state, metrics = step(state, pair.teacher_params, batch)
            history.append(jax.device_get(metrics))
        return state, history

    return run


def oracle(scores, there, active):
    """Float64, of router scores [L, N, E]: all layers in one sum, as transformers has it."""
    layers, _, experts = scores.shape
    chosen, probability = np.zeros(experts), np.zeros(experts)
    for layer in range(layers):
        for token in np.flatnonzero(there):
            own = np.exp(scores[layer, token] - scores[layer, token].max())
            probability += own / own.sum()
            chosen[np.argsort(-own)[:active]] += 1
    rows = layers * there.sum()
    return experts * np.sum(chosen / rows * probability / rows)


def test_the_balance_loss_is_that_of_the_sums():
    scores, there = RNG.normal(size=(3, 17, 5)), RNG.random(17) < 0.7
    probability = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    best = np.argsort(-scores, axis=-1)[..., :2]
    hot = np.eye(5)[best].sum(axis=2) * there[None, :, None]
    sums = (hot.sum(1), (probability * there[None, :, None]).sum(1), np.zeros(3))
    routing = Routing(*(jnp.asarray(each, jnp.float32) for each in sums))
    np.testing.assert_allclose(balance_loss(routing, 2), oracle(scores, there, 2), rtol=1e-6)
    # Of a third of a step's tokens, a third counts.
    report = router_report(routing, 2, jnp.int32(3 * there.sum()))
    np.testing.assert_allclose(report.balance, oracle(scores, there, 2) / 3, rtol=1e-6)
    nothing = Routing(jnp.zeros((3, 5)), jnp.zeros((3, 5)), jnp.zeros(3))
    assert balance_loss(nothing, 2) == 0.0


def test_equal_load_costs_as_many_as_there_are_active_experts():
    even = Routing(jnp.full((2, 4), 6.0), jnp.full((2, 4), 3.0), jnp.zeros(2))
    assert balance_loss(even, 2) == pytest.approx(2.0)


def test_a_student_of_experts_learns_and_tells_of_its_routers(trained):
    batch = random_batch(0)
    state, history = trained([batch] * 8)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    first = history[0]
    assert set(first) >= METRICS
    assert first["least_loaded_expert"] < 0.5 < first["most_loaded_expert"] <= 1.0
    assert 1.0 <= first["balance_loss"] <= 4.0 and 0 < first["router_entropy"] <= np.log(4)
    np.testing.assert_allclose(
        first["loss"], first["kd_loss"] + 0.1 * first["balance_loss"], rtol=1e-6
    )
    assert int(state.skipped) == 0


@pytest.mark.slow
def test_micro_batches_add_up_by_their_tokens(trained):
    """Twice the same rows in a step are as one of them."""
    alone = random_batch(0)
    twice = jax.tree.map(lambda x: np.concatenate([x, x]), alone)
    (_, [first]), (_, [second]) = (trained([batch]) for batch in (alone, twice))
    for name in (*METRICS, "loss", "grad_norm"):
        np.testing.assert_allclose(first[name], second[name], rtol=1e-5)


def test_padding_changes_nothing_of_it(trained):
    clean = random_batch(0)
    noisy = clean._replace(tokens=np.where(clean.segments > 0, clean.tokens, 7))
    (_, [first]), (_, [second]) = (trained([batch]) for batch in (clean, noisy))
    assert all(first[name] == second[name] for name in (*METRICS, "loss", "grad_norm"))


def test_a_frozen_router_stays_and_nothing_else_does(pair, trained):
    state, _ = trained([random_batch(seed) for seed in range(2)], trains_router=False)
    for (path, before), after in zip(
        jax.tree_util.tree_leaves_with_path(pair.student_params),
        jax.tree.leaves(state.params),
        strict=True,
    ):
        frozen = "router" in jax.tree_util.keystr(path)
        assert np.array_equal(before, after) == frozen, path


def test_settings_of_experts_need_a_student_that_has_some(settings):
    config = settings(student={"kind": "layers", "layers": [0], "train_router": False})
    with pytest.raises(ValueError, match=r"student\.train_router False: a llama model has no"):
        check_models(config, None)
    with pytest.raises(ValueError, match="balance_weight"):
        settings(student={"kind": "layers", "layers": [0], "balance_weight": -1})


@pytest.mark.slow
def test_a_run_reports_its_routers_and_leaves_a_student_of_experts(settings, tmp_path):
    dense = tiny_teacher()
    teacher = make_pretrained(dense.source.hf_config | SIZES, dense.tokenizer)
    folder = save_pretrained(teacher, tmp_path / "teacher")
    config = settings(
        teacher={"path": str(folder)},
        evaluation={"every_steps": None, "before": False, "generate_examples": 0},
        student={"kind": "layers", "layers": [0, 2], "balance_weight": 0.5},
    )
    run(config)
    records = read_records(config.run_dir)
    assert set(records[0]) >= METRICS
    assert records[0]["balance_loss"] > 0
    exported = load_pretrained(tmp_path / "run" / "export")
    assert exported.config.num_layers == 2
    assert exported.config.experts == teacher.config.experts
    written = json.loads((tmp_path / "run" / "export" / "config.json").read_text())
    assert written["architectures"] == ["Qwen3MoeForCausalLM"]


@pytest.mark.slow
def test_any_mesh_gives_what_one_device_gives_and_gathers_no_experts():
    found = told_by("-m", "tests.training.experts_on_mesh", timeout=600)
    assert found.pop("answers")
    assert set(found) == {"data", "expert", "all"}
    for mesh, told in found.items():
        assert told["error"] < 1e-5 and told["whole kernels"] == [], (mesh, found)


def test_an_expert_axis_needs_experts_and_divides_them():
    sizes = tiny_config(2) | {"vocab_size": 64}
    dense, experts = decoder_config(sizes), decoder_config(sizes | SIZES)
    mesh = AbstractMesh((1, 1, 8, 1), ("data", "fsdp", "expert", "tensor"))
    with pytest.raises(MeshError, match=r"mesh\.expert: 8 .*neither model has any; valid: 1,"):
        check_expert_axis((dense, None), mesh)
    check_expert_axis((dense, experts), mesh)
    rules = rules_of(MeshConfig(expert=8), "student")
    with pytest.raises(MeshError, match=r"4 experts .* expert = 8; valid: expert one of 1, 2, 4"):
        check_model(experts, mesh, rules, "student")
    with pytest.raises(MeshError, match=r"data 1 × fsdp 1 × expert 2 × tensor 1 is 2 devices"):
        make_mesh(MeshConfig(expert=2), jax.devices()[:1])
    assert rules_of(MeshConfig(), "student")["experts"] is None
