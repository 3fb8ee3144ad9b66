"""Finding out how a student's answers can be read."""

from __future__ import annotations

from typing import get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.errors import StudentError
from langchain_pld.student.binding import bind_student, model_spec
from langchain_pld.student.failures import RetryPolicy, failure_of, passes_through
from langchain_pld.student.prompt import chat
from langchain_pld.student.scoring import Scores, read_answer
from langchain_pld.verdict import Failure

__all__ = ["probe_scorer"]


async def probe_scorer(
    student: BaseChatModel, system_prompt: str, answer: AnswerFormat, text: str, *, timeout_s: float = 60.0
) -> Scorer:
    """The best scorer that the student's answers allow: log-probabilities, else structured, else text.

    Args:
        student: Any chat model.
        system_prompt: A prompt that asks for `answer`.
        answer: The answer form.
        text: An input to ask about.
        timeout_s: Seconds for each of at most three calls.

    Raises:
        StudentError: The model cannot be reached, or none of its answers can be read.
    """
    failure: Failure | None = None
    scorers: tuple[Scorer, ...] = get_args(Scorer)
    for scorer in scorers:
        bound = bind_student(student, answer, scorer, timeout_s=timeout_s)
        try:
            reply: AIMessage = await RetryPolicy().async_retrying()(bound.ainvoke, chat(system_prompt, text))
        except NotImplementedError:
            continue
        except Exception as error:  # typed below, and raised when the model cannot be reached at all
            if passes_through(error):
                raise
            failure = failure_of(error, model_spec(student))
            if failure.kind in {"connection", "timeout", "authentication", "model_missing", "rate_limit", "server"}:
                raise StudentError(failure) from error
            continue
        outcome = read_answer(reply, answer, scorer)
        if isinstance(outcome, Scores):
            return scorer
        failure = outcome
    raise StudentError(
        failure or Failure(kind="unreadable", message=f"{model_spec(student)} gave no answer that can be read")
    )
