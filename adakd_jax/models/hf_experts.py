"""What the config.json files of families with experts have in common."""

from adakd_jax.models.config import Experts
from adakd_jax.models.hf_values import HFConfig


def read_experts(
    hf: HFConfig, *, default_count: int, default_active: int, default_weight: float
) -> Experts:
    """The experts of every layer; the keywords are the family's own defaults.

    Raises:
        ValueError: layers without experts among others, or more active experts than there are.
    """
    _check_all_layers(hf)
    # Transformers 4 and 5 call it by either name, by family.
    given = [hf[key] for key in ("num_experts", "num_local_experts") if hf.get(key) is not None]
    weight = hf.get("router_aux_loss_coef")
    return Experts(
        count=given[0] if given else default_count,
        active=hf.get("num_experts_per_tok") or default_active,
        renormalised=hf.get("norm_topk_prob", False),
        balance_weight=default_weight if weight is None else weight,
    )


def _check_all_layers(hf: HFConfig) -> None:
    if hf.get("decoder_sparse_step", 1) != 1:
        raise ValueError(
            f"config.json: decoder_sparse_step={hf['decoder_sparse_step']!r} leaves layers without "
            "experts, which is not supported; valid: 1"
        )
    if hf.get("mlp_only_layers"):
        raise ValueError(
            f"config.json: mlp_only_layers={hf['mlp_only_layers']!r} are layers without experts, "
            "which is not supported; valid: []"
        )
