"""The run that all methods of a study start from: trained once, whoever asks first."""

from collections.abc import Sequence

from adakd_jax.config.provenance import OtherRunError, check_same_run
from adakd_jax.config.run import RunConfig
from adakd_jax.console import Console
from adakd_jax.training.run import run_job
from adakd_jax.user_path import user_path


def check_first(first: RunConfig | None) -> None:
    """Refuses to go on from a first run that had other settings.

    Raises:
        OtherRunError: names what differs.
    """
    if first is None:
        return
    try:
        check_same_run(first.run_dir, first)
    except OtherRunError as error:
        raise OtherRunError(
            f"{error}\nin a study: or another --output; all its runs start from this one"
        ) from None


def train_first(first: RunConfig | None, argv: Sequence[str], console: Console) -> None:
    """Train and export what all methods start from, or go on with it; nothing if that is done.

    Args:
        first: its settings, or None.
        argv: the exact command, for the record.
        console: where to show progress.

    Raises:
        SystemExit: 0 after SIGTERM or Ctrl-C, once the state is saved.
    """
    if first is None:
        return
    # The export comes last, and is there complete or not at all.
    if (user_path(first.run_dir) / "export" / "config.json").exists():
        console.print(f"first    {first.run_dir} is finished")
        return
    console.rule("first: what all methods start from")
    run_job(first, argv, console)
