"""What a run measures: the student before and after, the teacher's answers; each once a run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from adakd_jax.console import Console
from adakd_jax.eval.answers import answer_prompts
from adakd_jax.eval.suite import HeldOut, check_tokens, evaluate, hold_ready
from adakd_jax.eval.table import answers_table
from adakd_jax.hf.model_files import read_json
from adakd_jax.hf.pretrained import Pretrained
from adakd_jax.hf.vocabulary import embedding_of
from adakd_jax.processes import first_says, is_first
from adakd_jax.sharding import row_shards, rules_of
from adakd_jax.training.models import load_student, load_teacher
from adakd_jax.training.prepare import Run
from adakd_jax.user_path import user_path
from adakd_jax.whole_file import write_whole

EVALUATION = "evaluation"


def held_out_of(run: Run) -> HeldOut | None:
    """The held-out rows of a run, ready to be measured on; None if it has none.

    Raises:
        UnknownTokensError: they hold tokens that a model has no embedding for.
    """
    if run.held_out is None or run.student.tokenizer is None:
        return None
    data, evaluation = run.config.data, run.config.evaluation
    shards = row_shards(run.mesh)
    held_out = hold_ready(
        run.held_out,
        run.student.tokenizer,
        template=data.template,
        max_length=data.max_length,
        max_prompt_length=data.max_prompt_length,
        batch_rows=-(-evaluation.batch_rows // shards) * shards,
        max_examples=evaluation.max_examples,
        generate_examples=evaluation.generate_examples,
        chat=data.chat,
        on_error=data.on_error,
        cache_dir=data.cache_dir,
    )
    models = [embedding_of(run.student, "the student")]
    if run.teacher is not None:
        models.append(embedding_of(run.teacher, "the teacher"))
    check_tokens(held_out, models)
    return held_out


def measured(
    run: Run, held_out: HeldOut, params: Any, console: Console, *, answer: bool = True
) -> dict[str, Any]:
    """The held-out measurements of `params` as the student's weights, with their intervals."""
    generation = run.config.evaluation.generation
    evaluation = evaluate(
        run.student,
        held_out,
        generation,
        params=params,
        teacher=run.teacher,
        answer=answer,
        seed=run.config.seed,
        console=console,
    )
    return evaluation.to_dict() | {"intervals": evaluation.intervals(run.config.seed)}


def before_training(run: Run, held_out: HeldOut | None, console: Console) -> dict[str, Any]:
    """Measure the untrained student, and let the teacher answer what will be shown; once a run."""
    evaluation = run.config.evaluation
    results: dict[str, Any] = {}
    if held_out is None or not evaluation.before:
        return results

    def answers_of(teacher: Pretrained) -> dict[str, Any]:
        questions = held_out.questions[: evaluation.show_examples]
        prompts = [question.tokens for question in questions]
        answers = answer_prompts(teacher, prompts, evaluation.generation, seed=run.config.seed)
        return {"answers": [{"answer": answer.text} for answer in answers]}

    if run.teacher is not None and held_out.questions and evaluation.show_examples:
        teacher = run.teacher
        results["teacher"] = _stored(run, "teacher", lambda: answers_of(teacher))
    results["before"] = _stored(
        run, "before", lambda: measured(run, held_out, untrained_params(run), console)
    )
    return results


def untrained_params(run: Run) -> Any:
    """The student's weights before the first step; made again where the run is resumed, for
    evaluations that an earlier start left out.
    """
    if not run.resumed:
        return run.student.params
    config, teacher = run.config, run.teacher
    if teacher is None and config.teacher is not None and config.loads_teacher:
        teacher = load_teacher(config.teacher, run.mesh, rules_of(config.mesh, "teacher"))
    return load_student(config, teacher, run.mesh).params


def after_training(
    run: Run, params: Any, held_out: HeldOut | None, console: Console
) -> dict[str, Any]:
    """Measure the trained weights; once a run."""
    if held_out is None:
        return {}
    return {"after": _stored(run, "after", lambda: measured(run, held_out, params, console))}


def _stored(run: Run, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result of an earlier start, or a new one, written when it is complete."""
    folder = user_path(run.config.run_dir) / EVALUATION
    file = folder / f"{name}.json"
    if first_says(file.exists()):
        return read_json(file, "remove it, and the same command measures again")
    result = measure()
    if not is_first():
        return result
    write_whole(file, json.dumps(result, indent=2, ensure_ascii=False))
    return result


def show_answers(results: Mapping[str, Any], console: Console) -> None:
    """Print what teacher and student, before and after, answered to the same questions."""
    titles = {"teacher": "teacher", "before": "student before", "after": "student after"}
    shown = {title: results[name]["answers"] for name, title in titles.items() if name in results}
    if "after" not in results or len(shown) < 2:
        return
    for index in range(min(len(answers) for answers in shown.values())):
        prompt = results["after"]["answers"][index]["prompt"]
        texts = {title: answers[index]["answer"] for title, answers in shown.items()}
        console.print(answers_table(prompt, texts))
