"""Exports a student from a run's checkpoint: `python -m adakd_jax.export RUN OUT_DIR`."""

import sys
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from adakd_jax.config.parse import parse
from adakd_jax.config.stage import Stage
from adakd_jax.user_path import user_path

PROG = "python -m adakd_jax.export"


class ExportCommand(Stage):
    """What is exported, and where to."""

    run: str = Field(description="run folder")
    path: str = Field(description="folder to make; an earlier export in its place is replaced")
    step: str | None = Field(
        default=None, description="checkpoint: a step, 'latest' or 'best'; null: latest"
    )
    max_shard_size: str = Field(default="5GB", description="largest safetensors file")
    lora: Literal["merged", "adapter"] = Field(
        default="merged",
        description="of a student with adapters: the whole model with them merged in (float32), or "
        "they alone, for peft",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    config, _ = parse(
        ExportCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description="Writes a run's student as a folder that transformers and vLLM load.",
        positionals=("run", "path"),
        requires_config=False,
    )
    # Imported late: help and mistakes in flags do not wait for JAX.
    from adakd_jax.eval.command import user_errors
    from adakd_jax.eval.model import run_config
    from adakd_jax.hf.folder import refuse_to_overwrite
    from adakd_jax.training.export import export_student
    from adakd_jax.training.saved_student import load_student, saved_step

    with user_errors(PROG):
        run = run_config(config.run)
        if run is None:
            raise FileNotFoundError(f"{config.run} is not a run folder: it has no config.yaml")
        refuse_to_overwrite(config.path)
        step = saved_step(config.run, config.step)
        path, how_to_load = export_student(
            run,
            load_student(config.run, step),
            config.path,
            step=step,
            measured=_results(config),
            form=config.lora,
            max_shard_size=config.max_shard_size,
            run_dir=config.run,
        )
    print(f"exported {path}")
    print(f"load it: {how_to_load}")


def _results(config: ExportCommand) -> dict[str, dict[str, Any]]:
    """What the run measured; of the trained student only if it is the one exported."""
    from adakd_jax.hf.model_files import read_json

    names = ("before", "after") if config.step in (None, "latest") else ("before",)
    folder = user_path(config.run) / "evaluation"
    files = {name: folder / f"{name}.json" for name in names}
    return {name: read_json(file) for name, file in files.items() if file.exists()}


if __name__ == "__main__":
    main()
