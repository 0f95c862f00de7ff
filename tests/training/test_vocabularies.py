"""Teacher and student of one tokenizer whose embeddings are padded differently, and of two."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.training.records import read_records
from tests.hf.tiny import TINY_LLAMA, make_pretrained, other_tokenizer
from tests.training.tiny_run import run

PADDING = 16


def padded(model):
    """The model with more embeddings, of which its tokenizer knows nothing; they are not small."""
    embedding = jnp.pad(
        model.params["embed"]["embedding"], ((0, PADDING), (0, 0)), constant_values=3.0
    )
    size = model.config.vocab_size + PADDING
    return dataclasses.replace(
        model,
        config=dataclasses.replace(model.config, vocab_size=size),
        params=model.params | {"embed": {"embedding": embedding}},
        source=dataclasses.replace(
            model.source, hf_config=model.source.hf_config | {"vocab_size": size}
        ),
    )


def test_a_padded_teacher_teaches_what_it_teaches_without_padding(settings, teacher, tmp_path):
    model = load_pretrained(teacher)
    longer = save_pretrained(padded(model), tmp_path / "padded")
    shorter = make_pretrained(model.source.hf_config | {"num_hidden_layers": 1}, model.tokenizer)
    student = {"kind": "checkpoint", "path": str(save_pretrained(shorter, tmp_path / "student"))}
    told = []
    for name, path in (("as_it_is", teacher), ("longer", longer)):
        config = settings(name, teacher={"path": str(path)}, student=student)
        shown = run(config)
        assert ("over the first 320, the rest is padding" in shown) == (name == "longer")
        told.append([r["loss"] for r in read_records(config.run_dir) if "loss" in r])
    assert min(told[0]) > 0.1
    np.testing.assert_allclose(*told, rtol=1e-5)


def test_another_tokenizer_is_refused_with_three_tokens_that_differ(settings, teacher, tmp_path):
    student = save_pretrained(make_pretrained(TINY_LLAMA, other_tokenizer()), tmp_path / "other")
    config = settings(student={"kind": "checkpoint", "path": str(student)})
    three = r"token ids differ, e\.g\. (\d+ is '\S+' and '\S+'(; |\. Valid)){3}"
    with pytest.raises(ValueError, match=three):
        run(config)
