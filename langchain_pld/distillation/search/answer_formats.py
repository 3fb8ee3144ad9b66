"""Candidate answer formats, and the choice among them.

The words matter as much as any rule: a small student that answers "contradiction" to everything may still tell "yes"
from "no". Candidates are the label names, word sets from the task file, a few familiar sets, letters, evidence before
the label, and sets proposed by the teacher. All are scored on validation rows.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence

from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import BaseModel, Field, ValidationError
from scipy import stats

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import AnswerSource
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.templates import fill
from langchain_pld.rules import Rule
from langchain_pld.student.first_tokens import first_tokens_differ, with_first_tokens
from langchain_pld.student.providers import most_labels, tokenizer_of
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = [
    "FAMILIAR_WORDS",
    "answer_formats",
    "choose_format",
    "describe",
    "propose_words",
    "score_formats",
    "student_formats",
]

TokenIds = Callable[[str], Sequence[int]]

FAMILIAR_WORDS: tuple[dict[str, str], ...] = (
    {"entailment": "yes", "contradiction": "no", "not_mentioned": "unstated"},
    {"entailment": "yes", "contradiction": "no", "not_mentioned": "unknown"},
    {"entailment": "yes", "contradiction": "no", "neutral": "maybe"},
    {"entailment": "yes", "not_entailment": "no"},
    {"supports": "yes", "refutes": "no", "not_enough_info": "unknown"},
    {"supported": "yes", "refuted": "no", "not_enough_info": "unknown"},
    {"toxic": "toxic", "non_toxic": "clean"},
    {"toxic": "toxic", "not_toxic": "clean"},
    {"hateful": "yes", "non_hateful": "no"},
    {"hateful": "yes", "not_hateful": "no"},
    {"hate": "yes", "not_hate": "no"},
    {"true": "yes", "false": "no"},
    {"1": "yes", "0": "no"},
)
"""Label names of well-known tasks (lower case, `_` between words) to words that a small student can tell apart."""

_MAX_PROPOSALS = 3


def answer_formats(
    task: Task,
    sources: Sequence[AnswerSource],
    *,
    proposed: Iterable[dict[str, str]] = (),
    token_ids: TokenIds | None = None,
    most_labels: int = 18,
) -> list[AnswerFormat]:
    """The answer formats to score first; `evidence` is tried later with the best words.

    Word sets whose first tokens cannot be told apart are dropped. If none remain, letters are used; with too many
    labels for one answer or for single letters, two stages.

    Args:
        task: The task.
        sources: Where candidates may come from.
        proposed: Word sets proposed by the teacher, label to word.
        token_ids: The student's tokenizer, if available.
        most_labels: How many labels one answer of the student can show.
    """
    count = len(task.labels)
    if count > most_labels:
        return [AnswerFormat.two_stage(task)]
    sets: list[dict[str, str]] = []
    if "names" in sources:
        sets.append({name: name for name in task.label_names})
    if "task" in sources:
        sets += task.verbalizers
    if "familiar" in sources:
        sets += _familiar(task)
    if "teacher" in sources:
        sets += proposed
    formats: list[AnswerFormat] = []
    for words in sets:
        try:
            answer = AnswerFormat.words(task, words)
        except ValidationError:  # a label name may end in punctuation, an answer may not
            continue
        if token_ids is not None:
            answer = with_first_tokens(answer, token_ids)
        if answer not in formats and first_tokens_differ(answer, token_ids):
            formats.append(answer)
    letters = AnswerFormat.letters(task) if count <= 26 else None
    if letters is not None and (not formats or "letters" in sources):
        formats.append(letters)
    return formats or [AnswerFormat.two_stage(task)]


async def student_formats(
    run: Run, sources: Sequence[AnswerSource], proposed: Iterable[dict[str, str]] = ()
) -> list[AnswerFormat]:
    """`answer_formats` for the run's student; may load the model."""
    return await asyncio.to_thread(
        lambda: answer_formats(
            run.task,
            sources,
            proposed=proposed,
            token_ids=tokenizer_of(run.student),
            most_labels=most_labels(run.student),
        )
    )


async def score_formats(
    rules: tuple[Rule, ...],
    formats: Sequence[AnswerFormat],
    score: Callable[[Candidate, str], Awaitable[ScoredCandidate | None]],
    *,
    evidence: bool,
    name: str,
) -> list[ScoredCandidate]:
    """Score the same rules under each answer format, for `choose_format`.

    Args:
        rules: The rules; empty for zero-shot.
        formats: From `answer_formats`.
        score: Scores a candidate under a name; `None` if the budget is spent.
        evidence: Also try evidence before the label, with the best words.
        name: What the run's log calls the rules.
    """
    results = [await score(Candidate(rules=rules, answer=answer), f"{name} {describe(answer)}") for answer in formats]
    scored = [result for result in results if result is not None]
    words = [one for one in scored if one.candidate.answer.form == "words"]
    if evidence and words:
        best = min(words, key=lambda one: one.loss).candidate.answer
        answer = best.model_copy(update={"form": "evidence"})
        last = await score(Candidate(rules=rules, answer=answer), f"{name} {describe(answer)}")
        scored += [last] if last is not None else []
    return scored


def choose_format(scored: Sequence[ScoredCandidate]) -> ScoredCandidate:
    """The cheapest candidate whose cross-validated log loss is within one standard error of the best.

    The error is that of the paired differences, row by row. Cost is output tokens per text, rounded, because
    milliseconds differ from run to run. Ties go to the lower loss, then to the first.
    """
    best = min(scored, key=lambda one: one.loss)
    as_good = [one for one in scored if one is best or _within_standard_error(one.losses, best.losses)]
    return min(as_good, key=lambda one: (round(one.output_tokens), one.loss))


def describe(answer: AnswerFormat) -> str:
    """The format in a few words."""
    codes = list(answer.groups or answer.codes.values())
    shown = ", ".join(codes[:6]) + (", …" if len(codes) > 6 else "")
    return f"{answer.form} ({shown})"


def _within_standard_error(losses: Sequence[float], best: Sequence[float]) -> bool:
    differences = [one - other for one, other in zip(losses, best, strict=True)]
    return len(differences) > 1 and statistics.fmean(differences) <= float(stats.sem(differences))


class WordSets(BaseModel):
    """What the teacher proposes."""

    sets: list[list[str]] = Field(description="word sets; in each one word a label, in the order of the labels")


async def propose_words(run: Run) -> list[dict[str, str]]:
    """Ask the teacher for sets of answer words; at most three are kept, each with one plain word per label."""
    task = run.task
    labels = "\n".join(
        f"{n}. {label.name}: {label.description or label.name}" for n, label in enumerate(task.labels, 1)
    )
    question = f"The task: {task.instructions}\n\nThe labels:\n{labels}"
    answer = await run.teacher().ask([SystemMessage(fill("words")), HumanMessage(question)], WordSets)
    if isinstance(answer, Failure):
        run.note(f"the teacher proposed no answer words: {answer.message}")
        return []
    usable = [
        dict(zip(task.label_names, words, strict=True))
        for words in answer.sets
        if len(words) == len(task.labels) and all(word.isalpha() and len(word) <= 20 for word in words)
    ]
    return usable[:_MAX_PROPOSALS]


def _familiar(task: Task) -> list[dict[str, str]]:
    folded = {name: name.casefold().replace("-", "_") for name in task.label_names}
    fitting = [words for words in FAMILIAR_WORDS if sorted(words) == sorted(folded.values())]
    return [{name: words[key] for name, key in folded.items()} for words in fitting]
