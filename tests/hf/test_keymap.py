import dataclasses

import jax
import pytest

from adakd_jax.hf.keymap import head_name, parameters, tensor_names
from adakd_jax.models import FAMILIES, abstract_decoder, decoder_config
from adakd_jax.models.family import Entry
from tests.models.family_cases import CASES, ONE_EACH

SIZES = dict(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=16,
    full_attention_interval=2,
)
GPT2 = dict(model_type="gpt2", vocab_size=11, n_embd=8, n_layer=2, n_head=2, n_positions=16)


def config(family):
    """Of the family's own case, with the sizes of this file where it is built like Llama."""
    if family in ("llama", "gpt2"):
        return decoder_config(GPT2 if family == "gpt2" else dict(SIZES, model_type=family))
    return decoder_config(CASES[ONE_EACH[family]])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_has_one_row_and_every_tensor_one_owner(family, tied):
    model = dataclasses.replace(config(family), tied=tied, qkv_bias=True)
    _, params = abstract_decoder(model)
    rows = parameters(model)
    assert len(rows) == len(jax.tree.leaves(params))
    claims = [(name, row.pieces) for row in rows for name in tensor_names(row)]
    assert len(set(claims)) == len(claims)
    names = {name for name, _ in claims}
    assert (head_name(model) in names) is not tied
    one, other = ({name for name in names if layer in name} for layer in (".0.", ".1."))
    # The layers of Qwen3.5 here are of its two kinds.
    alike = len(set(model.mixers)) < 2
    assert one and other
    assert not alike or len(one) == len(other)


def test_shapes_are_those_of_the_file():
    llama = {row.entry.path: row for row in parameters(config("llama"))}
    assert llama["layers.ffw.down.kernel"].shape == (2, 12, 8)
    assert llama["layers.ffw.down.kernel"].tensor_shape == (8, 12)
    assert llama["embed.embedding"].tensor_shape == (11, 8)
    gpt2 = {row.entry.path: row for row in parameters(config("gpt2"))}
    for part, role in enumerate(("query", "key", "value")):
        kernel, bias = (gpt2[f"layers.attn.{role}.{kind}"] for kind in ("kernel", "bias"))
        assert (kernel.tensor_shape, bias.tensor_shape) == ((8, 24), (24,))
        assert kernel.entry.part == bias.entry.part == part


def test_a_table_with_a_gap_is_an_error(monkeypatch):
    family = FAMILIES["llama"]
    table = tuple(entry for entry in family.keys if "norm" not in entry.path)
    gap = dataclasses.replace(family, keys=(*table, Entry("layers.none", "none")))
    monkeypatch.setitem(FAMILIES, "llama", gap)
    with pytest.raises(ValueError, match=r"final_norm\.scale, layers\.attn_norm\.scale"):
        parameters(config("llama"))
