"""AdamW with its schedule, gradient clipping, and LATF's controller as a last link of the optax
chain.
"""

import functools
from typing import Any

import jax
import optax

from adakd_jax.config import DistillConfig, Latf, OptimizerConfig
from adakd_jax.distill import latf
from adakd_jax.training.routers import is_of_router

NOT_DECAYED = ("scale", "bias", "sinks", "scalar", "expert_scale")


def learning_rate_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate of optimizer step k = 0, 1, …: linear warm-up, then the configured shape.

    During warm-up the rate is peak·(k+1)/(warmup_steps+1), so that the first step already learns;
    the last of `total_steps` steps runs at `final_learning_rate` (constant: at the peak).
    """
    peak, final, warmup = config.learning_rate, config.final_learning_rate, config.warmup_steps
    remaining = max(1, total_steps - warmup - 1)
    if config.schedule == "constant":
        main = optax.constant_schedule(peak)
    elif config.schedule == "linear":
        main = optax.linear_schedule(peak, final, remaining)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, remaining, alpha=final / peak)
    else:
        decay = max(1, round(config.decay_fraction * total_steps))
        main = optax.linear_schedule(peak, final, decay, transition_begin=max(0, remaining - decay))
    if warmup == 0:
        return main
    return optax.join_schedules(
        [optax.linear_schedule(peak / (warmup + 1), peak, warmup), main], [warmup]
    )


def decayed(params: optax.Params, *, trains_router: bool = True) -> optax.Params:
    """Mark the weights that weight decay shrinks: all but norm scales, biases, sinks, scalars of
    layers, and routers that are not trained. Same tree, of bools.
    """

    def shrinks(path: tuple[Any, ...], _: Any) -> bool:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return name not in NOT_DECAYED and (trains_router or not is_of_router(path))

    return jax.tree_util.tree_map_with_path(shrinks, params)


def build_optimizer(
    config: OptimizerConfig,
    distill: DistillConfig,
    total_steps: int,
    *,
    trains_router: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Clipping → AdamW → LATF state.

    Args:
        config: the optimizer's settings.
        distill: read for LATF; without it, or without distillation, the chain holds no controller.
        total_steps: T, optimizer steps of the whole run.
        trains_router: False for routers without gradients, which then do not decay either.

    Returns:
        A transformation whose update takes `kd_loss` and `tokens` by keyword (see `distill.latf`).
        Gradients must be summed over the global batch already.
    """
    links = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    links.append(
        optax.adamw(
            learning_rate_schedule(config, total_steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=functools.partial(decayed, trains_router=trains_router),
        )
    )
    if distill.has_kd and isinstance(focus := distill.focus, Latf):
        links.append(
            latf(
                warmup_steps=max(1, round(focus.warmup_fraction * total_steps)),
                ema=focus.ema,
                tolerance=focus.tolerance,
                step_size=focus.step_size,
                min_ratio=focus.min_ratio,
            )
        )
    return optax.with_extra_args_support(optax.chain(*links))
