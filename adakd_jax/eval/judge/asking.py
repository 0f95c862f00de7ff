"""All questions to the judge, some at a time, each reply kept as it comes."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from adakd_jax.data.progress import track
from adakd_jax.eval.judge.client import JudgeError, JudgeRefusedError, Reply
from adakd_jax.eval.judge.question import Question

_FAILURES_IN_A_ROW = 5  # then the server is down, and asking on is waiting in vain


def ask_all(
    questions: Sequence[Question],
    ask: Callable[[dict], Reply],
    keep: Callable[[Question, Reply], None],
    *,
    concurrency: int,
) -> list[str]:
    """Asks every question; however it ends, replies that came are kept.

    Args:
      questions: what to ask.
      ask: gives the reply to a request, or raises `JudgeError`; called from several threads.
      keep: gets each reply as it comes; called from this thread.
      concurrency: questions under way at a time.

    Returns:
      Why questions stayed without reply, one text each; those that were never asked have none.

    Raises:
      JudgeRefusedError: no question will get a reply.
    """
    pool = ThreadPoolExecutor(concurrency)
    asked = {pool.submit(ask, question.request): question for question in questions}
    taken: set[Future[Reply]] = set()
    try:
        return _keep_replies(asked, taken, keep)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # Replies to what was under way when asking ended are paid for too.
        for future in asked.keys() - taken:
            if not future.cancelled() and future.exception() is None:
                keep(asked[future], future.result())


def _keep_replies(
    asked: Mapping[Future[Reply], Question],
    taken: set[Future[Reply]],
    keep: Callable[[Question, Reply], None],
) -> list[str]:
    """Keeps replies until the last, or until the server is down; adds to `taken` what it kept."""
    failures: list[str] = []
    in_a_row = 0
    for future in track(as_completed(asked), "judging", len(asked)):
        try:
            reply = future.result()
        except JudgeRefusedError:
            raise
        except JudgeError as error:
            failures.append(str(error))
            in_a_row += 1
            if in_a_row == _FAILURES_IN_A_ROW:
                break
            continue
        keep(asked[future], reply)
        taken.add(future)
        in_a_row = 0
    return failures
