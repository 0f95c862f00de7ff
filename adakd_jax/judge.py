"""Has a language model compare answers: `python -m adakd_jax.judge A.jsonl B.jsonl --model M`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NoReturn

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from adakd_jax.config import Columns
from adakd_jax.config.parse import parse
from adakd_jax.config.stage import NonNegative, Stage
from adakd_jax.user_path import local_path

if TYPE_CHECKING:
    from adakd_jax.eval.judge.pairs import Pair, Pairs
    from adakd_jax.eval.judge.question import Question
    from adakd_jax.eval.judge.result import Result
    from adakd_jax.eval.judge.verdict_file import VerdictFile

PROG = "python -m adakd_jax.judge"
DESCRIPTION = """\
Has a model behind an OpenAI-compatible server say which of two answers is better, for every request
of two files of answers, in both orders: a win only where both orders agree, else a tie. Shows what
it will cost and asks before it starts; start the same command again to continue. The key is read
from the environment and written nowhere."""
SWITCHES = {
    "yes": "ask the judge without asking you first",
    "dry_run": "show what it would cost and stop",
}


class JudgeCommand(Stage):
    """Who judges what."""

    answers_a: str = Field(description="answers of a model, as generate and evaluate write them")
    answers_b: str = Field(description="those of another model to the same requests")
    model: str = Field(description="the judge, as its server calls it")
    base_url: str = Field(
        default="https://api.openai.com/v1", description="of an OpenAI-compatible server"
    )
    key_variable: str = Field(
        default="OPENAI_API_KEY",
        description="environment variable that holds the key; absent: none is sent that means "
        "anything",
    )
    output: str = Field(
        default="runs/judge", description="local folder for replies (reused) and the result"
    )
    max_pairs: PositiveInt | None = Field(
        default=None, description="pairs judged, the first ones; null: all"
    )
    temperature: NonNegative | None = Field(
        default=0.0, description="of the judge; null: the server's default"
    )
    max_tokens: PositiveInt = Field(default=512, description="tokens of a reply, at most")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="what the server calls that limit"
    )
    concurrency: PositiveInt = Field(default=4, description="questions under way at a time")
    retries: NonNegativeInt = Field(
        default=5, description="of a question, after 0.5 s, doubling up to 8 s"
    )
    timeout: PositiveFloat = Field(default=120.0, description="seconds for one try")
    price_input: NonNegative | None = Field(
        default=None, description="of a million tokens in, for the estimate"
    )
    price_output: NonNegative | None = Field(
        default=None, description="of a million tokens out, for the estimate"
    )
    columns: Columns = Field(default=Columns(), description="column names of the answers")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Exit codes: 0 done, declined or a dry run; 1 some pairs stayed without
    verdict; 2 all did, or wrong settings, files or key; 130 interrupted.
    """
    config, switches = parse(
        JudgeCommand,
        sys.argv[1:] if argv is None else argv,
        prog=PROG,
        description=DESCRIPTION,
        extra_flags=SWITCHES,
        positionals=("answers_a", "answers_b"),
        requires_config=False,
    )
    from adakd_jax.eval.judge.client import JudgeRefusedError

    try:
        _judge(config, **switches)
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues", 130)
    except (OSError, ValueError, ImportError, JudgeRefusedError) as error:
        _fail(str(error), 2)


def _judge(config: JudgeCommand, *, yes: bool, dry_run: bool) -> None:
    from adakd_jax.eval.judge.client import check_address
    from adakd_jax.eval.judge.pairs import read_pairs
    from adakd_jax.eval.judge.question import JudgeSettings, questions_of
    from adakd_jax.eval.judge.verdict_file import VerdictFile

    check_address(config.base_url)
    found = read_pairs(config.answers_a, config.answers_b, config.columns)
    pairs = found.pairs[: config.max_pairs]
    settings = JudgeSettings(
        config.base_url, config.model, config.temperature, config.max_tokens, config.limit_name
    )
    both = {
        number: questions_of(number, pair, settings)
        for number, pair in enumerate(pairs)
        if pair.answer_a != pair.answer_b
    }
    file = VerdictFile(local_path(config.output, "output") / "replies.jsonl")
    questions = [question for orders in both.values() for question in orders]
    waiting = file.missing(questions)
    _tell(config, found, pairs, len(questions) - len(waiting), waiting)
    if dry_run:
        return
    if waiting:
        if not yes and not _confirmed():
            return
        _ask(config, waiting, file)
    _report(config, pairs, both, file)


def _tell(
    config: JudgeCommand,
    found: "Pairs",
    pairs: "Sequence[Pair]",
    present: int,
    waiting: "Sequence[Question]",
) -> None:
    from adakd_jax.eval.judge.cost import estimate

    same = sum(pair.answer_a == pair.answer_b for pair in pairs)
    line = f"{len(pairs)} pairs, {same} of them identical (ties, not asked)"
    if found.unmatched:
        line += f"; {found.unmatched} answers without a partner are left out"
    print(line)
    print(f"{present} replies are there already")
    cost = estimate(waiting, config.max_tokens, config.price_input, config.price_output)
    print(f"{config.model} at {config.base_url}: {cost.summary()}")


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise ValueError("nobody here to confirm; valid: --yes, or --dry_run to see the cost only")
    return input("ask the judge? [y/N] ").strip().lower() in ("y", "yes")


def _ask(config: JudgeCommand, waiting: "Sequence[Question]", file: "VerdictFile") -> None:
    from adakd_jax.eval.judge.asking import ask_all
    from adakd_jax.eval.judge.client import JudgeClient

    with JudgeClient(
        config.base_url, config.key_variable, retries=config.retries, timeout=config.timeout
    ) as client:
        failures = ask_all(waiting, client.ask, file.keep, concurrency=config.concurrency)
    if failures:
        print(
            f"{PROG}: {len(file.missing(waiting))} of {len(waiting)} questions have no reply, the "
            f"last because of {failures[-1]}; the same command asks them again",
            file=sys.stderr,
        )


def _report(
    config: JudgeCommand,
    pairs: "Sequence[Pair]",
    both: "dict[int, tuple[Question, Question]]",
    file: "VerdictFile",
) -> None:
    from adakd_jax.eval.judge.result import collect, write_result

    result = collect(pairs, both, file)
    print(_summary(config, result))
    output = local_path(config.output, "output") / "result.json"
    write_result(output, config.model_dump(mode="json"), result)
    print(f"written: {output}")
    if result.without_reply:
        raise SystemExit(1)


def _summary(config: JudgeCommand, result: "Result") -> str:
    found = result.judged
    lines = [
        f"{config.answers_a} against {config.answers_b}: {found.wins} wins, {found.ties} ties, "
        f"{found.losses} losses; win rate (ties count half) {found.win_rate:.1%} "
        f"[{found.low:.1%}, {found.high:.1%}]",
        f"of the ties, {found.identical} had identical answers, {found.disagreed} came of orders "
        f"that disagreed, {found.unparsable} of a reply without a verdict",
    ]
    if result.without_reply:
        lines.append(f"left out: {result.without_reply} pairs without a reply in both orders")
    if found.first_place is not None:
        lines.append(f"the answer that stood first won {found.first_place:.1%} of the verdicts")
    if result.cut:
        lines.append(f"{result.cut} replies were cut at --max_tokens {config.max_tokens}")
    lines.append(
        f"tokens counted by the server: {result.prompt_tokens:,} in, "
        f"{result.completion_tokens:,} out"
    )
    return "\n".join(lines)


def _fail(message: str, code: int) -> NoReturn:
    print(f"{PROG}: {message}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
