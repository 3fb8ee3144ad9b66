"""Reading a student's answer: pure functions from a model's message to label scores.

Three scorers, by what the model offers. `logprobs` matches the alternatives of the deciding token to the answer
codes, keeps the probability mass that fell on valid ones and renormalises; `structured` takes a JSON answer whose
schema lists the codes; `text` takes an answer that is exactly one code. Whatever does not fit is unreadable: a
`Failure`, never a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.student.label_words import SHORTEST_PREFIX, LabelWords, TokenLogprobs, word_masses
from langchain_pld.student.sanitize import ANSWER_MARKER
from langchain_pld.task import WRAPPING
from langchain_pld.verdict import Failure

__all__ = [
    "EVIDENCE_TOKENS",
    "Scores",
    "answer_schema",
    "first_token_matches",
    "first_tokens_differ",
    "read_answer",
    "thinks",
    "with_first_tokens",
    "with_written_tokens",
]

_FLOOR = 1e-6
LOG_FLOOR = math.log(_FLOOR)
"""Log-probability of a label that is not among the alternatives that the model showed."""

EVIDENCE_TOKENS = 32
"""Room for the evidence and the label, in tokens."""

_LONGEST_EVIDENCE = 200
_THINKING = re.compile(r"</?think(?:ing)?>|<\|channel\|>", re.IGNORECASE)
_THINKING_ENDS = re.compile(r"</think(?:ing)?>|<\|channel\|>final<\|message\|>", re.IGNORECASE)
_LONGEST_MARKER = len("<|channel|>final<|message|>")


class Scores(NamedTuple):
    """A readable answer."""

    log_probabilities: dict[str, float] | None
    """Label to log-probability, renormalised over the labels; `None` where the scorer gives the label alone."""
    label: str
    """The most probable label."""
    label_mass: float | None
    """Probability on valid answers before renormalising, 0 to 1."""
    evidence: str | None = None
    """What the student wrote before its label."""


def read_answer(
    message: AIMessage, answer: AnswerFormat, scorer: Scorer, *, min_label_mass: float = 0.0
) -> Scores | Failure:
    """Read one answer.

    Thinking before the answer is stepped over where the form has room for it; else it makes the answer unreadable.
    The questions of a two-stage answer are read by `two_stage`, not here.

    Args:
        message: What the model returned.
        answer: The form that was asked for.
        scorer: How to read it.
        min_label_mass: Below this probability on valid answers, the answer is unreadable.

    Returns:
        The scores, or why there are none.
    """
    try:
        if scorer == "logprobs":
            return _read_logprobs(message, answer, min_label_mass)
        return _read_written(message, answer, scorer)
    except Exception as error:  # a client may hand over a message with anything in its fields
        return _unreadable(f"the answer cannot be read ({type(error).__name__})")


def _read_written(message: AIMessage, answer: AnswerFormat, scorer: Scorer) -> Scores | Failure:
    text = str(message.text)
    if not text.strip():
        return _thinking_failure(message) if thinks(message) else _EMPTY
    # A structured or textual answer must be whole; of a token's alternatives only the first matters.
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
    """Whether the model thought before it answered, openly in its text or apart from it."""
    return _thinks(message, str(message.text), _token_logprobs(message.response_metadata.get("logprobs")))


def answer_schema(answer: AnswerFormat) -> dict[str, Any]:
    """JSON schema of a structured answer; the codes are literals, for two stages the letters of all questions."""
    codes = list(answer.codes.values())
    if answer.form == "two_stage":
        codes = sorted(set("".join(codes)))
    properties: dict[str, Any] = {"label": {"type": "string", "enum": codes}}
    if answer.form == "evidence":
        # The order of the properties is the order of writing: evidence first.
        properties = {"evidence": {"type": "string", "maxLength": 120}, **properties}
    return {
        "title": "answer",
        "description": "The decision.",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def first_token_matches(token: str, codes: Mapping[str, str]) -> str | None:
    """The label whose code a token spells or begins; `None` when there is none or more than one.

    Case, surrounding spaces and quotation marks are folded. A beginning counts from three characters on: shorter
    ones are too often the start of something else.
    """
    return LabelWords(codes).label(token)


def with_first_tokens(answer: AnswerFormat, token_ids: Callable[[str], Sequence[int]]) -> AnswerFormat:
    """The format with what the student's tokenizer makes of its codes.

    A tokenizer may cut "hateful" into "h" and "ateful". The "h" alone would be taken for the start of any word; it
    counts for its label once it is known that the student can only begin the code with it.

    Args:
        answer: The codes.
        token_ids: The student's tokenizer.
    """
    return _knowing(
        answer,
        {label: [_first_token(code, token_ids, space) for space in ("", " ")] for label, code in answer.codes.items()},
    )


def with_written_tokens(answer: AnswerFormat, written: Mapping[str, AIMessage]) -> AnswerFormat:
    """As `with_first_tokens`, where no tokenizer is at hand: learned from what the student wrote.

    Args:
        answer: The codes.
        written: Label to the student's answer, with log-probabilities, when it was told to write the label's code. An
            answer that does not begin as the code does teaches nothing.
    """
    found: dict[str, list[str | None]] = {}
    for label, message in written.items():
        tokens = _token_logprobs(message.response_metadata.get("logprobs"))
        start = tokens[0].token.strip(WRAPPING) if tokens else ""
        if not start or not answer.codes[label].startswith(start):
            return answer
        found[label] = [start]
    return _knowing(answer, found)


def _knowing(answer: AnswerFormat, found: Mapping[str, Iterable[str | None]]) -> AnswerFormat:
    """The format with those of the first tokens that are one label's alone, and that their letters do not tell."""
    starts = {label: {(text or "").strip(WRAPPING) for text in texts} - {""} for label, texts in found.items()}
    owners, words = Counter(start for one in starts.values() for start in one), LabelWords(answer.codes)
    telling = {
        label: tuple(
            sorted(
                start for start in one if owners[start] == 1 and (len(start) < SHORTEST_PREFIX or words.nests(start))
            )
        )
        for label, one in starts.items()
    }
    return answer.model_copy(update={"first_tokens": {label: one for label, one in telling.items() if one}})


def first_tokens_differ(answer: AnswerFormat, token_ids: Callable[[str], Sequence[int]] | None = None) -> bool:
    """Whether the codes can be told apart by the first token that the student writes.

    Args:
        answer: The codes.
        token_ids: The student's tokenizer, where one is at hand. Then the first token of each code, with and without a
            leading space, must be no other code's and must be read as its own label. Without it, the first three
            characters must differ, and none may be how another code begins.
    """
    if token_ids is not None:
        return all(_told_apart_by_tokens(with_first_tokens(answer, token_ids), token_ids, space) for space in ("", " "))
    beginnings = [code.casefold()[:SHORTEST_PREFIX] for code in answer.codes.values()]
    return not any(
        first.startswith(second) for i, first in enumerate(beginnings) for j, second in enumerate(beginnings) if i != j
    )


def _told_apart_by_tokens(answer: AnswerFormat, token_ids: Callable[[str], Sequence[int]], space: str) -> bool:
    alone = token_ids(space)[:1] if space else []
    words = LabelWords.of(answer)
    for label, code in answer.codes.items():
        first = token_ids(space + code)[:1]
        if first and first == alone:  # the space is a token of its own: nothing is said yet
            continue
        text = _first_token(code, token_ids, space)
        if text is None or words.label(text) != label:
            return False
    return True


def _first_token(code: str, token_ids: Callable[[str], Sequence[int]], space: str) -> str | None:
    """The text of the token that begins the code, space included: the shortest beginning with it as its only token."""
    first = list(token_ids(space + code)[:1])
    beginnings = (space + code[:length] for length in range(1, len(code) + 1))
    return next((text for text in beginnings if first and list(token_ids(text)) == first), None)


_EMPTY = Failure(kind="empty", message="the model ended at once and wrote nothing")


def _thinks(message: AIMessage, text: str, tokens: Sequence[TokenLogprobs]) -> bool:
    if message.additional_kwargs.get("reasoning_content") or _THINKING.search(text):
        return True
    written = "".join([token.token for token in tokens])
    if written == text:
        return False
    if _THINKING.search(written):
        return True
    # A client that drops the thinking leaves tokens with which the text does not begin.
    first = next((start for token in tokens if (start := token.token.strip())), "")
    in_full = "\ufffd" not in first  # a part of a character is no text yet
    return in_full and not text.lstrip().startswith(first)


def _thinking_failure(message: AIMessage) -> Failure:
    if _was_cut(message):
        return Failure(
            kind="cut",
            message="the model was still thinking at the token limit; switch thinking off or raise `thinking_tokens`",
        )
    return _unreadable(
        "the model thinks before it answers and its answer cannot be told from that; switch thinking off for this model"
    )


def _unreadable(what: str) -> Failure:
    return Failure(kind="unreadable", message=what)


def _was_cut(message: AIMessage) -> bool:
    metadata = message.response_metadata
    reason = metadata.get("done_reason") or metadata.get("finish_reason") or metadata.get("stop_reason") or ""
    return str(reason).casefold() in {"length", "max_tokens"}


def _read_logprobs(message: AIMessage, answer: AnswerFormat, min_label_mass: float) -> Scores | Failure:
    tokens, text = _token_logprobs(message.response_metadata.get("logprobs")), str(message.text)
    if not tokens:
        if not text.strip():
            return _EMPTY
        return _unreadable("the answer carries no log-probabilities; use the scorer 'structured' or 'text'")
    if _thinks(message, text, tokens):
        tokens = _after_thinking(tokens, text) if answer.thinking_tokens else []
        if not tokens:
            return _thinking_failure(message)
    tokens += _unscored(tokens, text)
    evidence: str | None = None
    position = 0
    if answer.form == "evidence":
        found = _after_marker(tokens)
        if found is None:
            if _was_cut(message):
                return Failure(kind="cut", message="the answer ended at the token limit before the label")
            return _unreadable(f"the answer has no {ANSWER_MARKER} with a label behind it")
        position, evidence = found
    read = word_masses(tokens[position:], LabelWords.of(answer), cut=_was_cut(message))
    masses = {label: read.labels.get(label, 0.0) for label in answer.codes}
    unclear = read.unclear
    mass = math.fsum(masses.values())
    if unclear and _may_decide(unclear, masses):
        token = max(unclear, key=unclear.__getitem__)
        return _unreadable(
            f"{unclear[token]:.0%} of the probability was on {token!r}, which may begin a label's word or another one; "
            "answer with letters or with words that the student's tokenizer does not cut so early"
        )
    if mass <= 0.0 or mass < min_label_mass:
        return _unreadable(
            f"only {mass:.1%} of the probability was on valid answers, at least {min_label_mass:.1%} is needed"
        )
    # Else a label would be decided by what little an answer about something else leaves it.
    stray = max(read.others.values(), default=0.0)
    if stray > max(masses.values()):
        return _unreadable(f"the likeliest answer, at {stray:.0%} of the probability, is none of the labels' words")
    floored = {label: max(value, _FLOOR) for label, value in masses.items()}
    total = math.log(math.fsum(floored.values()))
    normal = {label: math.log(value) - total for label, value in floored.items()}
    return Scores(
        log_probabilities=normal,
        label=max(normal, key=normal.__getitem__),
        label_mass=min(mass, 1.0),
        evidence=evidence,
    )


def _may_decide(unclear: Mapping[str, float], masses: Mapping[str, float]) -> bool:
    """Whether the tokens that cannot be told could change the answer: all of them might be the runner-up's."""
    *_, second, best = sorted(masses.values())
    return math.fsum(unclear.values()) > best - second


def _after_thinking(tokens: list[TokenLogprobs], text: str) -> list[TokenLogprobs]:
    """The tokens of the answer itself; none where it cannot be told from the thinking."""
    written, start = "", 0
    for index, token in enumerate(tokens, 1):
        before, written = len(written), written + token.token
        recent = max(0, before - _LONGEST_MARKER)
        if any(recent + match.end() > before for match in _THINKING_ENDS.finditer(written[recent:])):
            start = index
    if not start and text.strip() and not _THINKING.search(text):
        # The markers were taken off and the text holds the answer alone: it must be how the tokens end.
        rest = written.rstrip()
        if not rest.endswith(text.strip()):
            return []
        begin, length = len(rest) - len(text.strip()), 0
        for index, token in enumerate(tokens):
            length += len(token.token)
            if length > begin:
                start = index
                break
    elif not start:
        return []
    # White space between thinking and answer is neither.
    while start < len(tokens) and not tokens[start].token.strip():
        start += 1
    return tokens[start:]


def _unscored(tokens: list[TokenLogprobs], text: str) -> list[TokenLogprobs]:
    """What the text holds behind the tokens that came with probabilities: a list may end early, the answer does not."""
    scored = "".join([token.token for token in tokens]).strip()
    whole = text.strip()
    if whole == scored:
        return []
    ends = [match.end() for match in _THINKING_ENDS.finditer(whole)]
    _, _, rest = whole[ends[-1] if ends else 0 :].partition(scored)
    return [TokenLogprobs(rest, ((rest, 0.0),))] if rest else []


def _after_marker(tokens: Sequence[TokenLogprobs]) -> tuple[int, str] | None:
    """Index of the token that begins the label, and the evidence before the marker.

    The last marker counts: an earlier one may stand in the words that the student quotes.
    """
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


def _token_logprobs(raw: Any) -> list[TokenLogprobs]:
    """The tokens of `response_metadata["logprobs"]`, in Ollama's or OpenAI's shape; malformed ones end the list."""
    if isinstance(raw, Mapping):
        raw = raw.get("content")
    if not isinstance(raw, Iterable) or isinstance(raw, str | bytes):
        return []
    tokens: list[TokenLogprobs] = []
    for entry in raw:
        token = _field(entry, "token")
        alternatives = _field(entry, "top_logprobs") or [entry]
        if not isinstance(token, str) or not isinstance(alternatives, Iterable):
            break
        pairs = [(_field(option, "token"), _field(option, "logprob")) for option in alternatives]
        # Some servers list the most probable tokens only, and the one that was written is none of them.
        if token not in {text for text, _ in pairs if isinstance(text, str)}:
            pairs.append((token, _field(entry, "logprob")))
        # A NaN or a positive log-probability is no probability: do not read the rest as if it were one.
        if not all(map(_is_alternative, pairs)) or math.fsum([math.exp(value) for _, value in pairs]) > 1.01:
            break
        tokens.append(TokenLogprobs(token=token, alternatives=tuple(pairs)))
    return tokens


def _field(entry: Any, name: str) -> Any:
    # Asked 42 times an answer: to ask a dict whether it is a Mapping takes longer than all the rest.
    if type(entry) is dict or isinstance(entry, Mapping):
        return entry.get(name)
    return getattr(entry, name, None)


def _is_alternative(pair: tuple[Any, Any]) -> bool:
    text, value = pair
    # NaN compares false; an integer too large for a float is none that a server means.
    number = type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool))
    return isinstance(text, str) and number and (-1e300 <= value <= 1e-6 or value == -math.inf)


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
        return _unreadable("the JSON answer's label is none of the task's")
    evidence = value.get("evidence")
    return Scores(
        log_probabilities=None,
        label=label,
        label_mass=None,
        evidence=evidence if isinstance(evidence, str) and answer.form == "evidence" else None,
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two labels under one key, json would silently take the last.
    if len(dict(pairs)) < len(pairs):
        msg = "a key is there twice"
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
