"""How a run trains, saves, reports and evaluates."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from adakd_jax.config.checks import OPTIMIZER_CHECKS, TRAINING_CHECKS
from adakd_jax.config.stage import Check, NonNegative, Ratio, Stage


class OptimizerConfig(Stage):
    """AdamW, its schedule, clipping and weight averaging. Counts are optimizer steps."""

    checks: ClassVar[tuple[Check, ...]] = OPTIMIZER_CHECKS

    learning_rate: PositiveFloat = Field(default=5e-4, description="peak learning rate")
    final_learning_rate: NonNegative = Field(
        default=1e-7, description="learning rate at the last step"
    )
    schedule: Literal["constant", "linear", "cosine", "wsd"] = Field(
        default="cosine", description="shape after warm-up; wsd: constant, then linear decay"
    )
    warmup_steps: NonNegativeInt = Field(default=0, description="steps of linear warm-up from 0")
    decay_fraction: Ratio = Field(
        default=0.2, description="wsd: share of the steps in the final decay"
    )
    weight_decay: NonNegative = Field(
        default=0.01, description="decoupled weight decay; not on norms and biases"
    )
    b1: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.9, description="decay of the first moment"
    )
    b2: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        default=0.999, description="decay of the second moment"
    )
    eps: PositiveFloat = Field(default=1e-8, description="added to the root of the second moment")
    clip_norm: PositiveFloat | None = Field(
        default=1.0, description="global gradient norm; null: no clipping"
    )
    average_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None,
        description="decay of an average of the weights, evaluated and exported: at most "
        "(1 + t)/(10 + t) after t updates, so that a short run leaves the untrained weights behind "
        "too; null: none",
    )


class TrainingConfig(Stage):
    """How long a run is and what one optimizer step sees."""

    checks: ClassVar[tuple[Check, ...]] = TRAINING_CHECKS

    steps: PositiveInt | None = Field(default=None, description="optimizer steps; or give `epochs`")
    epochs: PositiveFloat | None = Field(
        default=None, description="passes over the data; or give `steps`"
    )
    batch_rows: PositiveInt | None = Field(
        default=None, description="packed rows a step; or give `batch_examples`"
    )
    batch_examples: PositiveInt | None = Field(
        default=None,
        description="examples a step, packed into the rows they need: a long run has steps of up "
        "to three sizes, each compiled once",
    )
    micro_batch_rows: PositiveInt | None = Field(
        default=None,
        description="packed rows per forward and backward pass; null: all rows of the step",
    )
    max_bad_steps: PositiveInt = Field(
        default=10, description="skipped (non-finite) updates in a row before the run stops"
    )


class CheckpointConfig(Stage):
    """When the training state is saved and what is kept."""

    every_steps: PositiveInt = Field(default=100, description="optimizer steps between saves")
    keep_last: PositiveInt = Field(
        default=2,
        description="newest checkpoints to keep; 1 leaves none to go back to if it is damaged",
    )
    keep_best: NonNegativeInt = Field(
        default=1,
        description="checkpoints of lowest held-out reverse KL (without a teacher: NLL) to keep "
        "besides; needs `evaluation.every_steps`",
    )
    accept_changed_inputs: bool = Field(
        default=False,
        description="go on from a checkpoint though rows, weights or tokenizer are others than the "
        "run began with; false: refuse, and say which have changed",
    )


class GenerationConfig(Stage):
    """How answers are sampled."""

    max_new_tokens: PositiveInt = Field(default=256, description="tokens of an answer, at most")
    temperature: NonNegative = Field(default=0.0, description="0: greedy")
    top_k: NonNegativeInt = Field(
        default=0, description="sample among the k likeliest tokens; 0: all"
    )
    top_p: Ratio = Field(
        default=1.0, description="sample among the likeliest tokens of this total mass"
    )
    repetition_penalty: PositiveFloat = Field(
        default=1.0,
        description="what logits of tokens that prompt or answer hold already are divided by, the "
        "negative ones multiplied; 1: nothing",
    )
    batch_size: PositiveInt = Field(
        default=16,
        description="prompts decoded together; on a mesh, what its devices divide, no fewer",
    )


class EvaluationConfig(Stage):
    """What is measured on held-out rows before, during and after training."""

    every_steps: PositiveInt | None = Field(
        default=None,
        description="optimizer steps between likelihood evaluations; null: only before and after",
    )
    before: bool = Field(default=True, description="evaluate the untrained student too")
    max_examples: PositiveInt | None = Field(
        default=None, description="held-out rows used; null: all"
    )
    batch_rows: PositiveInt = Field(default=4, description="packed rows per forward pass")
    generate_examples: NonNegativeInt = Field(
        default=100, description="held-out prompts answered for ROUGE-L, before and after; 0: none"
    )
    show_examples: NonNegativeInt = Field(
        default=3,
        description="answers printed side by side: teacher, student before, student after",
    )
    token_snapshots: NonNegativeInt = Field(
        default=5,
        description="times that difficulty, temperature, selection and likeliest tokens of a few "
        "held-out examples are recorded, evenly from before to after training; 1: after; 0: never",
    )
    token_examples: PositiveInt = Field(
        default=3, description="held-out examples in each of these records"
    )
    generation: GenerationConfig = Field(
        default=GenerationConfig(), description="how answers are sampled"
    )


class LoggingConfig(Stage):
    """Where metrics go besides `metrics.jsonl`."""

    every_steps: PositiveInt = Field(default=1, description="optimizer steps between records")
    tensorboard: bool = Field(default=True, description="write TensorBoard event files")
    token_gradients: bool = Field(
        default=False,
        description="record the norm of the gradient of a token's logits too, as means over the "
        "hardest and the easiest quarter of the kept tokens",
    )
    wandb_project: str | None = Field(
        default=None, description="Weights & Biases project; needs `wandb`"
    )


class ExportConfig(Stage):
    """The Hugging Face folder that a finished run leaves."""

    path: str | None = Field(default=None, description="folder to write; null: RUN_DIR/export")
    max_shard_size: str = Field(
        default="5GB",
        pattern=r"(?i)^\d+(\.\d+)?\s*[KMG]B$",
        description="largest safetensors file, a number with KB, MB or GB",
    )
    lora: Literal["merged", "adapter"] = Field(
        default="merged",
        description="of a student with `student.lora`: the whole model with its adapters merged in "
        "(float32), or the adapter alone, for peft",
    )
