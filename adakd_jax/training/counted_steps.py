"""How many steps the data of a run makes, without its weights."""

from adakd_jax.config import RunConfig, SeqKd
from adakd_jax.config.schedules import check_schedules, depends_on_steps
from adakd_jax.console import Console
from adakd_jax.data.files import DataNotFoundError
from adakd_jax.data.loader import TrainingBatches
from adakd_jax.hf.locate import ModelNotFoundError
from adakd_jax.training.chat import teacher_tokenizer, with_chat_template
from adakd_jax.training.data import read_data
from adakd_jax.training.models import load_student, load_teacher


def check_schedules_of_data(config: RunConfig, console: Console) -> None:
    """Count the steps of a run that is given in epochs, where its settings may not fit them. Says
    so where they cannot be counted here.

    Raises:
        ScheduleError: some settings do not fit.
        MalformedRowsError, EmptyDataError, ValueError: what is wrong with the data.
    """
    if not depends_on_steps(config):
        return
    try:
        if isinstance(config.policy, SeqKd):
            raise DataNotFoundError("the teacher has yet to write the responses")
        steps = _counted(config, console)
    except (ModelNotFoundError, DataNotFoundError) as error:
        console.print(
            f"note     how many steps training.epochs makes is not known ({error}): that warm-up "
            "and evaluations fit them is checked when training starts",
        )
        return
    console.print(f"steps    {steps}")
    check_schedules(config, steps)


def _counted(config: RunConfig, console: Console) -> int:
    teacher = None
    if config.teacher is not None and config.loads_teacher:
        teacher = load_teacher(config.teacher, weights=False)
    student = load_student(config, teacher, held="none")
    own = teacher_tokenizer(config, teacher)
    student = with_chat_template(config.data, student, own, console)
    examples, _ = read_data(config.data, student, config.seed, console)
    return TrainingBatches(examples, config.data, config.training, config.seed).total_steps
