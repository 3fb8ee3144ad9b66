"""Reading a student's answer: pure functions from a model's message to label scores.

`logprobs` matches the alternatives of the deciding token to the answer codes and renormalises the probability of valid
ones; `structured` takes a JSON answer whose schema lists the codes; `text` takes an answer that is exactly one code.
Anything else is unreadable: a `Failure`, never a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import accumulate, dropwhile
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.student.label_words import LabelWords, word_masses
from langchain_pld.student.sanitize import ANSWER_MARKER
from langchain_pld.student.token_logprobs import TokenLogprobs, token_logprobs
from langchain_pld.task import WRAPPING
from langchain_pld.verdict import Failure

__all__ = [
    "EVIDENCE_TOKENS",
    "Scores",
    "answer_schema",
    "read_answer",
    "thinks",
]

_FLOOR = 1e-6
LOG_FLOOR = math.log(_FLOOR)
"""Log-probability of a label that is not among the listed alternatives."""

EVIDENCE_TOKENS = 32
"""Tokens for evidence and label."""

_LONGEST_EVIDENCE = 200
_THINKING = re.compile(r"</?think(?:ing)?>|<\|channel\|>", re.IGNORECASE)
_THINKING_ENDS = re.compile(r"</think(?:ing)?>|<\|channel\|>final<\|message\|>", re.IGNORECASE)


class Scores(NamedTuple):
    """A readable answer."""

    log_probabilities: dict[str, float] | None
    """Label to log-probability, renormalised over the labels; `None` if the scorer reads only the label."""
    label: str
    """The most probable label."""
    label_mass: float | None
    """Probability of valid answers before renormalising, 0 to 1."""
    evidence: str | None = None
    """What the student wrote before its label."""


def read_answer(
    message: AIMessage, answer: AnswerFormat, scorer: Scorer, *, min_label_mass: float = 0.0
) -> Scores | Failure:
    """Read one answer; those of a two-stage form are read by `two_stage`.

    Thinking before the answer is skipped if the form has room for it; else it makes the answer unreadable.

    Args:
        message: What the model returned.
        answer: The form that was asked for.
        scorer: How to read it.
        min_label_mass: With less probability on valid answers, the answer is unreadable.
    """
    try:
        if scorer == "logprobs":
            return _read_logprobs(message, answer, min_label_mass)
        return _read_written(message, answer, scorer)
    except Exception as error:  # a client may put anything into a message's fields
        return _unreadable(f"the answer cannot be read ({type(error).__name__})")


def _read_written(message: AIMessage, answer: AnswerFormat, scorer: Scorer) -> Scores | Failure:
    text = str(message.text)
    if not text.strip():
        return _thinking_failure(message) if thinks(message) else _EMPTY
    # Structured and text answers must be whole; log-probabilities need only the first token.
    if _was_cut(message):
        return Failure(kind="cut", message="the answer ended at the token limit before it was complete")
    if answer.thinking_tokens:
        ends = [match.end() for match in _THINKING_ENDS.finditer(text)]
        text = text[ends[-1] :] if ends else text
    if _THINKING.search(text):
        return _thinking_failure(message)
    if scorer == "structured":
        return _read_structured(text, answer)
    return _read_text(text, answer)


def thinks(message: AIMessage) -> bool:
    """Whether the model thought before answering, in its text or apart from it."""
    return _thinks(message, str(message.text), token_logprobs(message))


def answer_schema(answer: AnswerFormat) -> dict[str, Any]:
    """JSON schema of a structured answer, with the codes as literals; for two stages, the letters of all questions."""
    codes = list(answer.codes.values())
    if answer.form == "two_stage":
        codes = sorted(set("".join(codes)))
    properties: dict[str, Any] = {"label": {"type": "string", "enum": codes}}
    if answer.form == "evidence":
        # Properties are written in this order: evidence first.
        properties = {"evidence": {"type": "string", "maxLength": 120}, **properties}
    return {
        "title": "answer",
        "description": "The decision.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_EMPTY = Failure(kind="empty", message="the model ended at once and wrote nothing")


def _thinks(message: AIMessage, text: str, tokens: Sequence[TokenLogprobs]) -> bool:
    if message.additional_kwargs.get("reasoning_content") or _THINKING.search(text):
        return True
    written = "".join([token.token for token in tokens])
    if written == text:
        return False
    if _THINKING.search(written):
        return True
    # If a client drops the thinking from the text, the text does not begin with the first token.
    first = next((start for token in tokens if (start := token.token.strip())), "")
    in_full = "\ufffd" not in first  # part of a character is not text yet
    return in_full and not text.lstrip().startswith(first)


def _thinking_failure(message: AIMessage) -> Failure:
    if _was_cut(message):
        return Failure(
            kind="cut",
            message="the model was still thinking at the token limit; switch thinking off or raise `thinking_tokens`",
        )
    return _unreadable(
        "the model thinks first, and its answer cannot be separated from that; switch thinking off for this model"
    )


def _unreadable(what: str) -> Failure:
    return Failure(kind="unreadable", message=what)


def _was_cut(message: AIMessage) -> bool:
    metadata = message.response_metadata
    reason = metadata.get("done_reason") or metadata.get("finish_reason") or metadata.get("stop_reason") or ""
    return str(reason).casefold() in {"length", "max_tokens"}


def _read_logprobs(message: AIMessage, answer: AnswerFormat, min_label_mass: float) -> Scores | Failure:
    tokens, text = token_logprobs(message), str(message.text)
    if not tokens:
        if not text.strip():
            return _EMPTY
        return _unreadable("the answer carries no log-probabilities; use the scorer 'structured' or 'text'")
    if _thinks(message, text, tokens):
        tokens = _after_thinking(tokens, text) if answer.thinking_tokens else []
        if not tokens:
            return _thinking_failure(message)
    rest, scored = _rest(tokens, text), len(tokens)
    if rest is None:
        return _unreadable("the answer's text differs from its tokens")
    tokens += [TokenLogprobs(rest, ((rest, 0.0),))] if rest else []
    evidence: str | None = None
    position = 0
    if answer.form == "evidence":
        found = _after_marker(tokens)
        if found is None:
            if _was_cut(message):
                return Failure(kind="cut", message="the answer ended at the token limit before the label")
            return _unreadable(f"the answer has no {ANSWER_MARKER} with a label behind it")
        position, evidence = found
        if ANSWER_MARKER in "".join([token.token for token in tokens[position:]]):
            return _unreadable(f"the answer has another {ANSWER_MARKER} after its label")
        if position >= scored:
            return _unreadable("the label carries no log-probabilities; use the scorer 'structured' or 'text'")
    labels, unclear, others = word_masses(tokens[position:], LabelWords.of(answer), cut=_was_cut(message))
    masses = {label: labels.get(label, 0.0) for label in answer.codes}
    mass = math.fsum(masses.values())
    *_, second, best = sorted(masses.values())
    # All unclear probability might belong to the runner-up.
    if unclear and math.fsum(unclear.values()) > best - second:
        token = max(unclear, key=unclear.__getitem__)
        return _unreadable(
            f"{unclear[token]:.0%} of the probability was on {token!r}, which may begin a label's word or another one; "
            "use letters, or words that the student's tokenizer does not cut so early"
        )
    if mass <= 0.0 or mass < min_label_mass:
        return _unreadable(
            f"only {mass:.1%} of the probability was on valid answers, at least {min_label_mass:.1%} is required"
        )
    # Else the little that an off-topic answer leaves would decide for a label.
    stray = max(others.values(), default=0.0)
    if stray > max(masses.values()):
        return _unreadable(f"the likeliest answer, with {stray:.0%} of the probability, is not a label's word")
    floored = {label: max(value, _FLOOR) for label, value in masses.items()}
    total = math.log(math.fsum(floored.values()))
    normal = {label: math.log(value) - total for label, value in floored.items()}
    return Scores(
        log_probabilities=normal,
        label=max(normal, key=normal.__getitem__),
        label_mass=min(mass, 1.0),
        evidence=evidence,
    )


def _after_thinking(tokens: list[TokenLogprobs], text: str) -> list[TokenLogprobs]:
    """The tokens of the answer itself; none if it cannot be separated from the thinking."""
    written, answer = "".join([token.token for token in tokens]), text.strip()
    stops = list(accumulate(len(token.token) for token in tokens))
    ends = [match.end() for match in _THINKING_ENDS.finditer(written)]
    if ends:
        kept = [token for token, stop in zip(tokens, stops, strict=True) if stop - len(token.token) >= ends[-1]]
    elif answer and not _THINKING.search(text) and written.rstrip().endswith(answer):
        # The client removed the markers and the thinking: the text is how the tokens end.
        start = len(written.rstrip()) - len(answer)
        kept = [token for token, stop in zip(tokens, stops, strict=True) if stop > start]
    else:
        return []
    # White space between them belongs to neither.
    return list(dropwhile(lambda token: not token.token.strip(), kept))


def _rest(tokens: list[TokenLogprobs], text: str) -> str | None:
    """The text after its scored tokens, whose list may end early; `None` if they differ."""
    scored, ends = "".join([token.token for token in tokens]).strip(), [*_THINKING_ENDS.finditer(text)]
    whole = text[ends[-1].end() if ends else 0 :].strip()
    if whole.startswith(scored):
        return whole[len(scored) :]
    # Clients drop end tokens and may fold white space.
    return "" if "".join(scored.split()).startswith("".join(whole.split())) else None


def _after_marker(tokens: Sequence[TokenLogprobs]) -> tuple[int, str] | None:
    """Index of the label's first token, and the evidence before the last marker; quotations may have earlier ones."""
    text = ""
    found: tuple[int, str] | None = None
    evidence: str | None = None
    for index, token in enumerate(tokens):
        if evidence is not None and token.token.strip(WRAPPING + ANSWER_MARKER):
            found, evidence = (index, evidence), None
        text += token.token
        if text.rstrip().endswith(ANSWER_MARKER):
            evidence = text.rstrip().removesuffix(ANSWER_MARKER).strip(WRAPPING)[-_LONGEST_EVIDENCE:]
            found = None
    return found


def _read_structured(text: str, answer: AnswerFormat) -> Scores | Failure:
    body = text.strip()
    if body.startswith("```") and body.endswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    try:
        value = json.loads(body, object_pairs_hook=_without_doubles)
    except (ValueError, RecursionError):
        return _unreadable("the answer is not JSON")
    if not isinstance(value, dict) or not isinstance(value.get("label"), str):
        return _unreadable("the JSON answer has no text under 'label'")
    label = _exact(value["label"], answer)
    if label is None:
        return _unreadable("the JSON answer's label is not one of the task's")
    evidence = value.get("evidence")
    return Scores(
        log_probabilities=None,
        label=label,
        label_mass=None,
        evidence=evidence if isinstance(evidence, str) and answer.form == "evidence" else None,
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two equal keys, json would silently take the last.
    if len(dict(pairs)) < len(pairs):
        msg = "a key appears twice"
        raise ValueError(msg)
    return dict(pairs)


def _read_text(text: str, answer: AnswerFormat) -> Scores | Failure:
    evidence: str | None = None
    if answer.form == "evidence":
        evidence, marker, text = text.rpartition(ANSWER_MARKER)
        if not marker:
            return _unreadable(f"the answer has no {ANSWER_MARKER} with a label behind it")
        evidence = evidence.strip(WRAPPING)[-_LONGEST_EVIDENCE:]
    label = _exact(text, answer)
    if label is None:
        return _unreadable("the answer is not exactly one of the task's labels")
    return Scores(log_probabilities=None, label=label, label_mass=None, evidence=evidence)


def _exact(text: str, answer: AnswerFormat) -> str | None:
    folded = text.strip(WRAPPING).casefold()
    return next((label for label, code in answer.codes.items() if code.strip().casefold() == folded), None)
