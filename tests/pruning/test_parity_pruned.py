"""Pruned students of every family load in transformers, and what is measured is what its models do
there.
"""

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from adakd_jax.config.models import StudentPruned
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.student import init_student
from adakd_jax.models.layer_kinds import layers_with
from adakd_jax.pruning.choice import choose
from adakd_jax.pruning.fit import fitted_kernels
from adakd_jax.pruning.importance import measure_importance
from adakd_jax.pruning.shape import planned_choice
from adakd_jax.pruning.sizes import asked_sizes
from tests.models.family_cases import ONE_EACH
from tests.models.tiny import forward
from tests.models.torch_models import torch_model
from tests.pruning.tiny import rows

pytestmark = pytest.mark.parity

# Modules whose input is measured, wherever a family has them.
DOWN = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "output_linear")
OUT = ("o_proj", "out_proj", "c_proj", "dense")


@pytest.mark.parametrize("family", ONE_EACH)
def test_pruned_students_load_in_transformers(family, tmp_path):
    torch_model(ONE_EACH[family]).save_pretrained(tmp_path / "teacher")
    teacher = load_pretrained(tmp_path / "teacher")
    source = _all_sizes(teacher.config)
    importance = measure_importance(teacher, [rows()])
    sizes = asked_sizes(source, teacher.config)
    choice = choose(teacher.config, importance, sizes, _layers(teacher))
    fitted = fitted_kernels(teacher, [rows()], choice)
    student = init_student(source, teacher, jax.random.key(0), choice=choice, fitted=fitted)
    folder = save_pretrained(student, tmp_path / "student")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    tokens = np.random.default_rng(0).integers(3, 61, (2, 12))
    places = np.tile(np.arange(12), (2, 1))
    ours = forward(student.graphdef, student.params, tokens, places, np.ones_like(tokens))[1]
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert sum(each.numel() for each in model.parameters()) < 0.8 * sum(
        leaf.size for leaf in jax.tree.leaves(teacher.params)
    )


def _all_sizes(config):
    sizes = {"layers": 2, "ffw": 0.5, "heads": 0.5, "width": 0.5}
    if config.experts is not None:
        # torch's product of experts takes rows of whole 16 bytes alone.
        sizes |= {"ffw": 16, "experts": max(config.experts.active, config.experts.count // 2)}
    if config.wide is not None:
        sizes |= {"layers": 4, "heads": None}
    if config.reader_ffw_dim is not None:
        sizes["ffw"] = None
    if config.family == "granitemoehybrid":
        # The sizes of its mixers that are not there would have to fit the width.
        sizes["width"] = None
    return StudentPruned(**sizes)


def _layers(teacher):
    """One of each kind: transformers has no cache for a model without any attention."""
    if teacher.config.wide is not None:
        return list(planned_choice(StudentPruned(layers=4), teacher.source.hf_config).layers)
    if not teacher.config.mixers:
        return None
    return [layers_with(teacher.config, "delta")[0], layers_with(teacher.config, "attn")[0]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "opt", "gemma2", "granite"])
def test_norms_of_activations_are_those_of_torch(family, tmp_path):
    model = torch_model(ONE_EACH[family])
    model.save_pretrained(tmp_path)
    teacher = load_pretrained(tmp_path)
    batch = rows()
    places = np.tile(np.arange(10, dtype=np.int32), (3, 1))
    batch = batch._replace(segments=np.ones_like(batch.segments), positions=places)
    found = measure_importance(teacher, [batch])
    seen = {}
    for name, module in model.named_modules():
        end = name.rpartition(".")[2]
        inside = "attn" in name or "attention" in name
        if (inside and end in OUT) or (not inside and end in DOWN):
            kind = "attn" if inside else "ffw"
            module.register_forward_pre_hook(
                lambda _, inputs, kind=kind: seen.setdefault(kind, []).append(inputs[0].numpy())
            )
    with torch.no_grad():
        model(torch.from_numpy(batch.tokens.astype(np.int64)))
    for layer in range(teacher.config.num_layers):
        hidden = seen["ffw"][layer].reshape(3, 10, -1)
        norms = np.sqrt((hidden**2).sum(0)).mean(0)
        np.testing.assert_allclose(found.neurons[layer], norms, rtol=1e-3, atol=1e-5)
        heads = seen["attn"][layer].reshape(3, 10, teacher.config.num_kv_heads, -1)
        norms = np.sqrt((heads**2).sum((0, 3))).mean(0)
        np.testing.assert_allclose(found.groups[layer], norms, rtol=1e-3, atol=1e-5)
