"""Finding out how to read a student's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.errors import ModelSetupError, StudentError
from langchain_pld.student.failures import RetryPolicy, failure_of, passes_through
from langchain_pld.student.first_tokens import with_written_tokens
from langchain_pld.student.prompt import chat
from langchain_pld.student.providers import profile_of
from langchain_pld.student.sanitize import clean_text
from langchain_pld.student.scoring import Scores, read_answer, thinks
from langchain_pld.student.two_stage import first_question
from langchain_pld.verdict import Failure

__all__ = ["NOT_ANSWERING", "THINKING_TOKENS", "Probe", "learn_first_tokens", "probe_formats", "probe_student"]

THINKING_TOKENS = 1024
"""Tokens for thinking for a student whose thinking cannot be switched off."""

NOT_ANSWERING = {"connection", "timeout", "authentication", "model_missing", "rate_limit", "server"}
"""Failures of the service: another question would fail too."""


@dataclass(frozen=True)
class Probe:
    """How to read a student's answers."""

    scorer: Scorer
    """The best scorer that works."""
    thinking_tokens: int
    """Tokens to allow for thinking before the answer; 0 if it does not think."""


async def probe_formats(
    student: BaseChatModel,
    prompts: Sequence[tuple[str, AnswerFormat]],
    text: str,
    *,
    timeout_s: float = 60.0,
) -> Probe:
    """Probe one answer form after another until one can be read: letters may work where words do not.

    Args:
        student: Any chat model.
        prompts: System prompts, each with its answer format; the first of each form is tried.
        text: An input to ask about.
        timeout_s: Time limit of each call, in seconds.

    Raises:
        StudentError: The model cannot be reached, or no form can be read (with the first form's failure).
    """
    firsts = {answer.form: (prompt, answer) for prompt, answer in reversed(prompts)}
    failed: StudentError | None = None
    for prompt, answer in sorted(firsts.values(), key=prompts.index):
        try:
            return await probe_student(student, prompt, answer, text, timeout_s=timeout_s)
        except StudentError as error:
            if error.failure.kind in NOT_ANSWERING:
                raise
            failed = failed or error
    raise failed or StudentError(Failure(kind="input", message="there is no answer format to probe"))


async def learn_first_tokens(student: BaseChatModel, answer: AnswerFormat, *, timeout_s: float = 60.0) -> AnswerFormat:
    """Learn the first tokens of the codes by having the student write each one, if its tokenizer is not available.

    See `with_first_tokens`. A code whose answer teaches nothing stays unknown; an ambiguous token then still makes an
    answer unreadable.

    Args:
        student: Any chat model that returns log-probabilities.
        answer: Words to answer with.
        timeout_s: Time limit of each call, in seconds; one call per label.
    """
    if answer.first_tokens is not None or answer.thinking_tokens:
        return answer
    bound = profile_of(student).bind(answer, "logprobs", timeout_s=timeout_s)
    written: dict[str, AIMessage] = {}
    for label, code in answer.codes.items():
        try:
            written[label] = await bound.ainvoke([HumanMessage(f"Write this word and nothing else: {code}")])
        except Exception as error:  # not knowing the tokens is safe
            if passes_through(error):
                raise
            return answer
    return with_written_tokens(answer, written)


async def probe_student(
    student: BaseChatModel, system_prompt: str, answer: AnswerFormat, text: str, *, timeout_s: float = 60.0
) -> Probe:
    """Ask about one text and see what can be read: log-probabilities, else structured, else text.

    If nothing can be read from a student that thinks although told not to, it is asked again with room for thinking.

    Args:
        student: Any chat model.
        system_prompt: A prompt that asks for `answer`.
        answer: The answer form.
        text: An input to ask about.
        timeout_s: Time limit, in seconds, of each of up to three calls; up to six for a student that thinks.

    Raises:
        StudentError: The model cannot be reached, or none of its answers can be read.
    """
    profile, clean = profile_of(student), clean_text(text)
    failure: Failure | None = None
    thinking = False
    scorers: tuple[Scorer, ...] = get_args(Scorer)
    for tokens in (0, THINKING_TOKENS):
        asked = shown = answer.model_copy(update={"thinking_tokens": tokens})
        messages = chat(system_prompt, clean)
        if asked.form == "two_stage":
            messages, shown = first_question(system_prompt, clean, asked)
        for scorer in scorers:
            try:
                bound = profile.bind(asked, scorer, timeout_s=timeout_s)
                reply = await RetryPolicy().acall(partial(bound.ainvoke, messages))
            except (NotImplementedError, ModelSetupError):
                continue
            except Exception as error:  # typed below, and raised if the model cannot be reached
                if passes_through(error):
                    raise
                failure = failure_of(error, profile.spec)
                if failure.kind in NOT_ANSWERING:
                    raise StudentError(failure) from error
                continue
            outcome = read_answer(reply, shown, scorer)
            if isinstance(outcome, Scores):
                return Probe(scorer, tokens)
            failure = outcome
            thinking = thinking or thinks(reply)
        if not thinking:
            break
    raise StudentError(failure or Failure(kind="unreadable", message=f"{profile.spec} gave no readable answer"))
