"""The train step that a run of given settings has, with random weights in place of its own."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from adakd_jax.axes import TokenBatch
from adakd_jax.config.plan import PlanConfig
from adakd_jax.models.decoder import random_params
from adakd_jax.models.lora import split_adapters
from adakd_jax.training.dry_run import abstract_step, run_shapes
from adakd_jax.training.optimizer import build_optimizer
from adakd_jax.training.state import TrainState, init_state
from benchmarks.cases import LEARNING_RATE, Batch, Setting

STEPS = 1000  # of the learning-rate schedule; AdaKD's share stays as it is set for the first 50
PLAIN = {"score": {"kind": "uniform"}, "focus": {"kind": "all"}, "temperature": {"kind": "fixed"}}
METHODS: dict[str, dict[str, Any]] = {"plain": PLAIN, "adakd": {}}


def run_settings(
    setting: Setting, method: str, rows: int, length: int, topology: str = "cpu:1"
) -> PlanConfig:
    """Settings of a run of a pair: constant learning rate, no clipping, as the peers train.

    Args:
        setting: the pair; models are given by shape alone.
        method: one of METHODS.
        rows: of a step.
        length: tokens of a row.
        topology: to plan for.
    """
    student: dict[str, Any] = {"kind": "random", "config": setting.student}
    student |= {"compute_dtype": setting.dtype}
    if setting.lora is not None:
        # The names that peft gives them.
        lora, words = dict(setting.lora), {"r": "rank", "lora_alpha": "alpha"}
        words |= {"lora_dropout": "dropout", "target_modules": "targets"}
        student["lora"] = {words[name]: value for name, value in lora.items()}
        student["lora"]["base_dtype"] = setting.dtype
    architecture = {"architecture": setting.teacher, "dtype": setting.dtype}
    return PlanConfig.model_validate(
        {
            "run_dir": "unused",
            "topology": [topology],
            "data": {
                "train": {"kind": "file", "path": "unused"},
                "max_length": length,
                "max_prompt_length": length // 2,
            },
            "teacher": {"path": "/nowhere/teacher", **architecture},
            "student": student,
            "distill": METHODS[method],
            "optimizer": {
                "learning_rate": LEARNING_RATE,
                "schedule": "constant",
                "clip_norm": None,
            },
            "training": {"steps": STEPS, "batch_rows": rows},
        }
    )


class RunStep:
    """A train step, compiled as `python -m adakd_jax.train` would on this device.

    Attributes:
        config: its settings.
        compiled: the program.
        teacher: the teacher's weights, random.
    """

    def __init__(self, config: PlanConfig, teacher: Any = None):
        """Compile; `teacher` are weights that another step of the same pair has made."""
        self.config = config
        self._shapes = run_shapes(config)
        step, arguments = abstract_step(config, self._shapes)
        self.compiled = step.lower(*arguments).compile()
        self.teacher = self.make_teacher() if teacher is None else teacher
        self._base: Any = None
        self._optimizer = build_optimizer(config.optimizer, config.distill, STEPS)
        self._start = jax.jit(self._first_state)

    @property
    def program_bytes(self) -> int:
        """What the compiler says that the program needs: arguments, results, temporaries."""
        memory = self.compiled.memory_analysis()
        kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
        return memory.argument_size_in_bytes + kept + memory.temp_size_in_bytes

    def make_teacher(self) -> Any:
        """Random weights of the teacher."""
        return self._weights("teacher", 0)

    def start(self, keep_ratio: float | None = None) -> TrainState:
        """A state to begin from: new weights, empty moments; AdaKD with a share of the tokens. The
        states before it cannot be gone on with.
        """
        self._base = None  # of the state before
        state, self._base = self._start()
        if keep_ratio is None:
            return state
        opt_state = optax.tree.set(state.opt_state, keep_ratio=jnp.float32(keep_ratio))
        return state._replace(opt_state=opt_state)

    def _first_state(self) -> tuple[TrainState, Any]:
        base, params = None, self._weights("student", 1)
        if self._shapes.student.lora is not None:
            base, params = split_adapters(params)
        return init_state(params, self._optimizer, seed=0), base

    def run(self, state: TrainState, batch: TokenBatch) -> tuple[TrainState, Mapping[str, Any]]:
        """One step; the state is donated."""
        return self.compiled(state, self.teacher, batch, self._base)

    def _weights(self, who: str, seed: int) -> Any:
        model = getattr(self._shapes, who)
        shapes = getattr(self._shapes, f"{who}_params")
        dtype = next(leaf.dtype for leaf in jax.tree.leaves(split_adapters(shapes)[0]))
        return random_params(model, jax.random.key(seed), dtype)


def on_device(batch: Batch) -> TokenBatch:
    """One micro-batch, put on the device."""
    return TokenBatch(*(jnp.asarray(array[None]) for array in batch))
