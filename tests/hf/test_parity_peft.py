"""An exported adapter is loaded by peft, and peft's by us: same logits."""

import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from adakd_jax.config import LoraConfig
from adakd_jax.hf.adapter import save_adapter
from adakd_jax.hf.export import save_pretrained
from adakd_jax.hf.load import load_pretrained
from adakd_jax.hf.lora import merge_peft, with_adapters
from tests.hf.test_parity_export import FAMILIES, our_logits, their_logits
from tests.hf.test_peft import KEY, trained
from tests.hf.tiny import make_pretrained

pytestmark = [
    pytest.mark.parity,
    # Of transformers 5.24, about what peft 0.21 calls.
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

IDS = [5, 40, 17, 20, 41, 8, 60]
SETTINGS = {
    "all": LoraConfig(rank=4, alpha=8.0, base_dtype="float32"),
    "some": LoraConfig(rank=3, alpha=4.5, base_dtype="float32"),
}
SOME = {
    "gpt2": ("c_attn", "mlp.c_proj"),
    "llama": ("q_proj", "v_proj"),
    "gemma3": ("down_proj",),
    "qwen3_5_text": ("q_proj", "in_proj_qkv", "in_proj_a"),
    "gemma4_text": ("q_proj", "k_proj", "up_proj", "per_layer_projection"),
    "qwen3_next": ("in_proj_qkvz", "in_proj_ba", "q_proj"),
}
# The norm of a head that is nearly 0 would amplify rounding, torch's as much as ours.
MODELS = FAMILIES | {"qwen3_next": FAMILIES["qwen3_next"] | {"rms_norm_eps": 1e-2}}


@pytest.mark.parametrize("which", SETTINGS)
@pytest.mark.parametrize("family", SOME)
def test_peft_loads_what_is_exported(family, which, tmp_path):
    settings = SETTINGS[which]
    if which == "some":
        settings = settings.model_copy(update={"targets": SOME[family]})
    model = make_pretrained(MODELS[family])
    student = trained(model, settings, scale=0.1)
    base = save_pretrained(model, tmp_path / "base")
    folder = save_adapter(student, tmp_path / "adapter", base=str(base))
    plain = AutoModelForCausalLM.from_pretrained(base).eval()
    before = their_logits(plain, IDS)
    theirs = PeftModel.from_pretrained(plain, folder).eval()
    got = our_logits(student)(IDS)
    np.testing.assert_allclose(got, their_logits(theirs, IDS), rtol=0, atol=1e-4)
    assert np.abs(got - before).max() > 0.1
    merged = AutoModelForCausalLM.from_pretrained(save_pretrained(student, tmp_path / "merged"))
    np.testing.assert_allclose(got, their_logits(merged.eval(), IDS), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", SOME)
def test_an_adapter_of_peft_s_own_is_loaded(family, tmp_path):
    model = make_pretrained(MODELS[family])
    plain = AutoModelForCausalLM.from_pretrained(save_pretrained(model, tmp_path / "base"))
    settings = PeftConfig(
        r=3,
        lora_alpha=6,
        target_modules=list(SOME[family]),
        task_type="CAUSAL_LM",
        fan_in_fan_out=family == "gpt2",
        init_lora_weights=False,  # B is drawn too
    )
    torch.manual_seed(0)
    theirs = get_peft_model(plain, settings).eval()
    theirs.save_pretrained(tmp_path / "adapter")
    wanted = their_logits(theirs, IDS)
    merged = merge_peft(load_pretrained(tmp_path / "base"), tmp_path / "adapter")
    np.testing.assert_allclose(our_logits(merged)(IDS), wanted, rtol=0, atol=1e-4)
    ours = LoraConfig(rank=3, alpha=6.0, targets=SOME[family], base_dtype="float32")
    student = with_adapters(model, ours, KEY, tmp_path / "adapter")
    np.testing.assert_allclose(our_logits(student)(IDS), wanted, rtol=0, atol=1e-4)
