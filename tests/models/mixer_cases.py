"""Tiny models whose layers are of several kinds, by the keys of their config.json."""

_QWEN = dict(
    model_type="qwen3_5_text",
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=9,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    linear_num_key_heads=2,
    linear_num_value_heads=6,
    linear_key_head_dim=12,
    linear_value_head_dim=10,
    linear_conv_kernel_dim=4,
    pad_token_id=None,
    eos_token_id=None,
)
_MROPE = dict(mrope_section=[1, 1, 0], mrope_interleaved=True)
_NEXT = dict(
    _QWEN,
    model_type="qwen3_next",
    num_hidden_layers=5,
    moe_intermediate_size=20,
    shared_expert_intermediate_size=28,
    num_experts=6,
    num_experts_per_tok=3,
)
# Two with a window, one without, three times; the last six layers read keys and values.
_GEMMA = dict(
    model_type="gemma4_text",
    vocab_size=61,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=9,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    global_head_dim=16,
    max_position_embeddings=256,
    sliding_window=7,
    layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 3,
    num_kv_shared_layers=6,
    vocab_size_per_layer_input=61,
    hidden_size_per_layer_input=12,
    use_double_wide_mlp=True,
    final_logit_softcapping=3.0,
    pad_token_id=None,
    eos_token_id=None,
)
MIXER_CASES = {
    "gemma4_text": _GEMMA,
    # As of 31B: nothing shared, no inputs of layers, keys are values.
    "gemma4_keys_are_values": dict(
        _GEMMA,
        num_hidden_layers=6,
        layer_types=None,
        num_kv_shared_layers=0,
        hidden_size_per_layer_input=0,
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
        tie_word_embeddings=False,
        attention_bias=True,
        final_logit_softcapping=None,
        use_bidirectional_attention="vision",
        rope_parameters=dict(
            sliding_attention=dict(rope_type="default", rope_theta=50.0),
            full_attention=dict(
                rope_type="proportional", rope_theta=300.0, partial_rotary_factor=0.5
            ),
        ),
    ),
    # What reads and what is read in one run of layers; nothing is wider.
    "gemma4_narrow_readers": dict(
        _GEMMA,
        num_hidden_layers=5,
        layer_types=["full_attention", "sliding_attention", *["full_attention"] * 3],
        num_kv_shared_layers=2,
        use_double_wide_mlp=False,
        global_head_dim=8,
        tie_word_embeddings=False,
    ),
    # As of 26B-A4B, and all the rest as well.
    "gemma4_experts": dict(
        _GEMMA,
        num_hidden_layers=5,
        layer_types=["sliding_attention", *["sliding_attention", "full_attention"] * 2],
        num_kv_shared_layers=2,
        attention_k_eq_v=True,
        num_global_key_value_heads=1,
        # The norm of a head that is nearly 0 would amplify rounding, torch's as much as ours.
        rms_norm_eps=1e-2,
        enable_moe_block=True,
        num_experts=5,
        top_k_experts=2,
        moe_intermediate_size=20,
    ),
    "qwen3_5_text": _QWEN,
    "qwen3_5_text_tied_biased": dict(
        _QWEN,
        num_hidden_layers=5,
        tie_word_embeddings=True,
        attention_bias=True,
        linear_num_value_heads=2,
        linear_conv_kernel_dim=3,
        layer_types=["full_attention", *["linear_attention"] * 2, *["full_attention"] * 2],
        rope_parameters=dict(
            rope_type="default", rope_theta=500.0, partial_rotary_factor=0.5, **_MROPE
        ),
    ),
    "qwen3_next": _NEXT,
    "qwen3_next_not_renormalised": dict(
        _NEXT,
        num_hidden_layers=3,
        norm_topk_prob=False,
        attention_bias=True,
        tie_word_embeddings=True,
        linear_num_value_heads=2,
        layer_types=["linear_attention", "full_attention", "linear_attention"],
    ),
}
