"""Inputs longer than the student's context: read in overlapping chunks or refused, never silently cut."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from langchain_pld.errors import InputError
from langchain_pld.student.scoring import Scores
from langchain_pld.task import Task
from langchain_pld.verdict import Failure, Verdict

__all__ = [
    "RESERVED_TOKENS",
    "SMALLEST_CHUNK",
    "LongInput",
    "chunk_spans",
    "estimated_tokens",
    "mean_scores",
    "most_severe",
    "worst_chunk",
]

worst_chunk: ContextVar[Callable[[Sequence[Verdict]], Verdict] | None] = ContextVar("worst_chunk", default=None)
"""Picks the verdict on a long input from those on its chunks; set by a guard, whose policy knows which is worst.

Averaging would drown one bad sentence in the harmless text around it. It belongs to the call, not the classifier, so no
wrapper around a classifier can lose it. `LongInput.combine` and `severe` take precedence.
"""

RESERVED_TOKENS = 160
"""Kept free in the context for the answer (96 at most), the chat template and the delimiters."""

SMALLEST_CHUNK = 64
"""Least room for the text, in tokens; with less, the prompt is too long for the context."""

_BYTES_PER_TOKEN = 2
_LONGEST_TOKEN = 8
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*\s+|\n+")
_SPACE = re.compile(r"\s+")


class LongInput(BaseModel):
    """What happens to an input that does not fit the student's context.

    A task with one text reads chunks by default: a moderator expects the end of a long post to be read too. A task with
    fields refuses: a chunk might hold a hypothesis without its premise.

    The gate's guarantee and the calibration are for whole inputs and hold only approximately over chunks. Under `any`,
    a false alarm in one chunk is a false alarm on the whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    action: Literal["chunks", "fail"] | None = None
    """Read in chunks, or return a failed verdict; `None`: chunks without fields, fail with fields."""
    combine: Literal["any", "mean"] | None = None
    """`any`: a severe label decided in any chunk wins, else every chunk must decide; `mean`: the mean of the chunks'
    log-probabilities. `None`: any if severe labels are known, else mean."""
    severe: tuple[str, ...] = ()
    """The labels that win under `any`, most severe first; if empty, all but the `none_label`, equally severe."""
    overlap: float = Field(default=0.15, ge=0, le=0.5)
    """Share of a chunk repeated in the next one, so that text across a cut is read whole."""
    max_chunks: int = Field(default=64, ge=1)
    """Inputs that need more chunks are refused."""

    def in_chunks(self, task: Task) -> bool:
        """Whether an input of this task is read in chunks."""
        return self.action == "chunks" or (self.action is None and not task.fields)

    def severity(self, task: Task) -> tuple[tuple[str, ...], ...]:
        """Groups of labels that win under `any`, most severe first; empty if chunks are averaged.

        Raises:
            InputError: `severe` names labels that the task does not have, or `any` has no severe labels.
        """
        strangers = sorted(set(self.severe) - set(task.label_names))
        if strangers:
            msg = f"severe labels {', '.join(strangers)} are not in task {task.name!r}: {', '.join(task.label_names)}"
            raise InputError(msg)
        if self.combine == "mean":
            return ()
        if self.severe:
            return tuple((label,) for label in self.severe)
        if task.none_label is not None:
            return (tuple(label for label in task.label_names if label != task.none_label),)
        if self.combine == "any":
            msg = f"combine='any' needs severe labels, or a none_label in task {task.name!r}"
            raise InputError(msg)
        return ()


def estimated_tokens(text: str) -> int:
    """A high estimate for models without a known tokenizer: one token per two UTF-8 bytes.

    English prose has about four bytes per token; code, numbers, Chinese, Japanese and Hindi two to three. Random
    characters can take more tokens, so servers that cut prompts are checked after the call as well.
    """
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN)


def chunk_spans(text: str, *, room: int, count: Callable[[str], int], overlap: float = 0.15) -> list[tuple[int, int]]:
    """Cut a text into overlapping chunks, at sentence or line ends if possible, else between words.

    Args:
        text: The whole text.
        room: Maximum tokens of a chunk.
        count: Counts the tokens of a text.
        overlap: Share of a chunk repeated in the next one, 0 to 0.5.

    Returns:
        Start and end of each chunk, in order; together they cover every character.

    Raises:
        InputError: There is less room than `SMALLEST_CHUNK`.
    """
    if room < SMALLEST_CHUNK:
        msg = (
            f"the system prompt leaves {max(room, 0)} tokens of the student's context for the input; "
            "give the student a longer context"
        )
        raise InputError(msg)
    spans: list[tuple[int, int]] = []
    start = 0
    while True:
        end = _furthest(text, start, room, count)
        if end < len(text):
            reached = spans[-1][1] if spans else 0
            end = _good_cut(text, max(start + (end - start) // 2, reached), end)
            # Rarely, fewer characters have slightly more tokens.
            while count(text[start:end]) > room and end > start + 1:
                end = max(start + 1, end - max(1, (end - start) // 16))
        spans.append((start, end))
        if end == len(text):
            return spans
        back = int((end - start) * overlap)
        space = _SPACE.search(text, end - back, end)
        # Begin at a word, but always move forward.
        start = max(start + 1, space.end() if space else end - back)


def mean_scores(outcomes: Sequence[Scores | Failure]) -> Scores | Failure:
    """Mean of the chunks' log-probabilities, renormalised; without them, the chunks must agree.

    If one chunk fails, the whole fails.
    """
    scores: list[Scores] = []
    for number, outcome in enumerate(outcomes, 1):
        if isinstance(outcome, Failure):
            return outcome.model_copy(update={"message": f"chunk {number} of {len(outcomes)}: {outcome.message}"})
        scores.append(outcome)
    tables = [one.log_probabilities for one in scores if one.log_probabilities is not None]
    masses = [one.label_mass for one in scores if one.label_mass is not None]
    mass = min(masses, default=None)
    if len(tables) < len(scores):
        if len({one.label for one in scores}) > 1:
            return Failure(kind="unreadable", message="the chunks' labels differ and carry no scores to average")
        return Scores(log_probabilities=None, label=scores[0].label, label_mass=mass)
    means = {label: math.fsum(table[label] for table in tables) / len(tables) for label in tables[0]}
    total = math.log(math.fsum(math.exp(value) for value in means.values()))
    normal = {label: value - total for label, value in means.items()}
    return Scores(log_probabilities=normal, label=max(normal, key=normal.__getitem__), label_mass=mass)


def most_severe(verdicts: Sequence[Verdict], severity: Sequence[Sequence[str]]) -> Verdict:
    """The verdict on the whole, from its most severe chunk.

    A decision for a severe label wins, whatever happened to the other chunks; among equally severe labels, the most
    confident. Otherwise the worst chunk counts: a failed one, then an abstained one, then the least confident.
    """
    for labels in severity:
        found = [verdict for verdict in verdicts if verdict.label in labels]
        if found:
            return max(found, key=_confidence)
    for status in ("failed", "abstained"):
        worse = [verdict for verdict in verdicts if verdict.status == status]
        if worse:
            return min(worse, key=_confidence)
    return min(verdicts, key=_confidence)


def _confidence(verdict: Verdict) -> float:
    return -1.0 if verdict.confidence is None else verdict.confidence


def _furthest(text: str, start: int, room: int, count: Callable[[str], int]) -> int:
    """The end of the longest text from `start` that fits, at most eight characters per token."""
    low, high = start + 1, min(len(text), start + room * _LONGEST_TOKEN)
    if count(text[start:high]) <= room:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if count(text[start:middle]) <= room:
            low = middle
        else:
            high = middle
    return low


def _good_cut(text: str, since: int, end: int) -> int:
    """The last sentence or line end between two indices, else the last space, else `end`."""
    for pattern in (_SENTENCE_END, _SPACE):
        ends = [match.end() for match in pattern.finditer(text, since, end)]
        if ends:
            return ends[-1]
    return end
