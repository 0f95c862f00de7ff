"""A run in words, for its model card."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from adakd_jax.config.distill import DistillConfig
from adakd_jax.config.provenance import package_versions
from adakd_jax.eval.table import card_metrics
from adakd_jax.hf.card import CardFacts, model_card
from adakd_jax.training.prepare import Run


def run_card(run: Run, measured: Mapping[str, Mapping[str, Any]], argv: Sequence[str]) -> str:
    """The model card of a finished run.

    Args:
        run: what was trained.
        measured: column title → evaluation, as `Evaluation.to_dict` gives it.
        argv: the command.
    """
    batches, report = run.batches, run.batches.examples.report
    micro_batches, rows, length = batches.shape
    return model_card(
        CardFacts(
            name=f"{run.teacher.source.name.rsplit('/', 1)[-1]}, distilled",
            teacher=run.teacher.source.name,
            teacher_licence=run.teacher.source.licence,
            origin=f"The student started from {run.student.source.name}.",
            method=f"{method_text(run.config.distill)} {batches.total_steps} optimizer steps of "
            f"{micro_batches * rows} packed rows of {length} tokens; AdamW, peak learning rate "
            f"{run.config.optimizer.learning_rate:g}, {run.config.optimizer.schedule} schedule.",
            data=f"{report.examples:,} examples of {report.tokens:,} tokens, "
            f"{report.response_tokens:,} of them response tokens; "
            f"prompt format: {run.config.data.template}.",
            command=argv,
            parameters=sum(leaf.size for leaf in jax.tree.leaves(run.student.params)),
            metrics=card_metrics(measured) if measured else None,
            versions={
                name: version
                for name, version in package_versions().items()
                if name in ("adakd_jax", "jax", "flax", "optax", "transformers")
            },
        )
    )


def method_text(config: DistillConfig) -> str:
    """The four slots of the loss in a sentence."""
    slots = {
        "difficulty score": config.score,
        "token focus": config.focus,
        "temperature": config.temperature,
        "divergence": config.divergence,
    }
    parts = []
    for name, slot in slots.items():
        options = {key: value for key, value in slot.model_dump().items() if key != "kind"}
        listed = ", ".join(f"{key} {value}" for key, value in options.items())
        parts.append(f"{name} `{slot.kind}`" + (f" ({listed})" if listed else ""))
    weights = f"weight {config.kd_weight:g} on distillation, {config.ce_weight:g} on cross-entropy"
    return f"Token-adaptive distillation: {'; '.join(parts)}; {weights}."
