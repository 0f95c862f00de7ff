"""Tunix: its `DistillationTrainer` with its `LogitStrategy` on its own Llama model.

The trainer runs as its guide sets it up, one batch a `train` call: teacher forward under a jit of
its own, whose [B, T, V] logits are an argument of the jitted student step. What differs from the
other contenders, and cannot be changed from outside:

- the divergence is forward KL, and its mean runs over every position: prompt and padding count;
- the hard loss of the student and that of the teacher are computed, with one-hot [B, T, V] labels,
  even where `alpha` = 1 gives the first no weight and the second is a metric;
- the rotary base is 1,000,000 whatever the configuration says, which costs the same.

No mesh: on one device it changes nothing but the second step, which then compiles again.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from tunix.distillation import distillation_trainer, strategies
from tunix.models.llama3 import model as llama
from tunix.sft import utils

from benchmarks import cases
from benchmarks.cases import Batch

KINDS = ("forward_kl",)


class _Trainer(distillation_trainer.DistillationTrainer):
    """The trainer, with the step's metrics kept: it logs a step's loss only during the next one."""

    step_metrics: dict[str, jax.Array]

    def _post_process_train_step(self, aux: dict[str, jax.Array]) -> None:
        self.step_metrics = aux


def _model(layers: int, seed: int) -> llama.Llama3:
    """SmolLM2-135M's shape in float32; the zoo's own initial values (zeros in the MLP) replaced."""
    config = llama.ModelConfig(
        num_layers=layers,
        vocab_size=cases.VOCABULARY,
        embed_dim=cases.WIDTH,
        hidden_dim=cases.FEED_FORWARD,
        num_heads=cases.HEADS,
        head_dim=cases.HEAD_DIM,
        num_kv_heads=cases.KV_HEADS,
        rope_theta=100_000,
        norm_eps=1e-5,
        weight_tying=True,
        remat_config=llama.RematConfig.NONE,
    )
    model = llama.Llama3(config, rngs=nnx.Rngs(params=seed))
    params = nnx.state(model, nnx.Param)
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    drawn = [
        0.02 * jax.random.normal(key, leaf.shape, jnp.float32) if leaf.ndim > 1 else leaf
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    nnx.update(model, jax.tree.unflatten(structure, drawn))
    return model


def _forward(
    model: nnx.Module,
    input_tokens: jax.Array,
    input_mask: jax.Array,
    positions: jax.Array,
    attention_mask: jax.Array,
) -> jax.Array:
    """Logits of all T positions, as the other contenders score them (the guide drops the last)."""
    logits, _ = model(input_tokens, positions, None, attention_mask)
    return logits


def _hard_labels(input_tokens: jax.Array, input_mask: jax.Array, **_: jax.Array) -> jax.Array:
    """One-hot next tokens, which the strategy asks for; the last one is arbitrary, unweighted."""
    one_hot = jax.nn.one_hot(jnp.roll(input_tokens, -1, axis=1), cases.VOCABULARY)
    return one_hot * input_mask[..., None]


def _model_input(example: distillation_trainer.TrainingInput) -> dict[str, jax.Array]:
    """What the two functions above take, made from the padding mask with Tunix's helpers."""
    return {
        "input_tokens": example.input_tokens,
        "input_mask": example.input_mask,
        "positions": utils.build_positions_from_mask(example.input_mask),
        "attention_mask": utils.make_causal_attn_mask(example.input_mask),
    }


def _trainer() -> _Trainer:
    """Plain forward KL at temperature 1, no metrics or checkpoints on disk."""
    trainer = _Trainer(
        student_model=_model(cases.STUDENT_LAYERS, seed=0),
        teacher_model=_model(cases.TEACHER_LAYERS, seed=1),
        strategy=strategies.LogitStrategy(
            student_forward_fn=_forward,
            teacher_forward_fn=_forward,
            labels_fn=_hard_labels,
            temperature=1.0,
            alpha=1.0,
        ),
        optimizer=optax.adamw(cases.LEARNING_RATE, weight_decay=0.01),
        training_config=distillation_trainer.TrainingConfig(eval_every_n_steps=1_000_000),
    ).with_gen_model_input_fn(_model_input)
    trainer.is_managed_externally = True  # `train` can then be called again
    return trainer


def make_step(kind: str, batches: list[Batch]) -> Callable[[Batch], float]:
    """One training step as a function of a batch; it compiles on the first batch of a shape."""
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: Tunix has {KINDS}")
    trainer = _trainer()

    def step(batch: Batch) -> float:
        example = distillation_trainer.TrainingInput(
            input_tokens=jnp.asarray(batch.tokens), input_mask=jnp.asarray(batch.segments > 0)
        )
        trainer.train([example])
        jax.block_until_ready((nnx.state(trainer.model), nnx.state(trainer.optimizer)))
        return float(trainer.step_metrics["distill/soft_loss"])

    return step
