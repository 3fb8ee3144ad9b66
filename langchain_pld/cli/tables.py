"""What people read about artifacts and verdicts: score cards, rules, decisions."""

from __future__ import annotations

from collections.abc import Iterable
from shutil import get_terminal_size
from typing import TYPE_CHECKING

import typer

from langchain_pld.artifact import DistilledPrompt, FinishReason, ScoreCard
from langchain_pld.cli.printing import count, output, printable, table
from langchain_pld.task import Task, TaskInput
from langchain_pld.verdict import Verdict

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["print_end", "print_scores", "rules_list", "score_table", "score_tables", "verdict_line", "verdict_row"]


def score_tables(cards: Iterable[ScoreCard]) -> list[Table]:
    """One table a data role, in the order of the cards; the title has rows and student.

    Cards of several students are in one table, a row for each student and prompt; those of the plain baselines, which
    no student has to do with, once.
    """
    roles: dict[str, dict[tuple[str, str, bool], ScoreCard]] = {}
    for card in cards:
        roles.setdefault(card.role, {}).setdefault((card.student, card.name, card.calibrated), card)
    return [score_table(list(group.values()), f"{role} rows") for role, group in roles.items()]


def score_table(cards: list[ScoreCard], rows: str) -> Table:
    """Score cards of the same rows side by side.

    Args:
        cards: The cards, at least one.
        rows: What the rows are, for the title, which also has their number and the student; several students have a
            column instead.
    """
    students = dict.fromkeys(card.student for card in cards if card.student != "-")
    several = len(students) > 1
    parts = [f"{rows}: {cards[0].rows}", *([] if several else [f"student {name}" for name in students])]
    failed = any(card.failed for card in cards)
    scores = table(
        ", ".join([*parts, f"{cards[0].macro_f1.level:.0%} intervals"]),
        [*(["student"] if several else []), "prompt"],
        ["macro-F1", "accuracy", "ECE", "prompt\ntokens", "ms a\ntext", *(["failed"] if failed else [])],
    )
    for card in cards:
        kind = "" if card.student == "-" else ", calibrated" if card.calibrated else ", raw"
        scores.add_row(
            *([card.student] if several else []),
            card.name + kind,
            str(card.macro_f1),
            str(card.accuracy),
            "-" if card.ece is None else f"{card.ece:.3f}",
            "-" if card.prompt_tokens is None else str(card.prompt_tokens),
            "-" if card.ms_per_text is None else f"{card.ms_per_text:.0f}" if card.ms_per_text >= 1 else "< 1",
            *([str(card.failed)] if failed else []),
        )
    return scores


def print_scores(artifact: DistilledPrompt) -> None:
    """Print what was measured, how the run ended and what a reader should know."""
    for scores in score_tables(artifact.scores):
        output().print(scores)
    print_end(artifact)


def print_end(artifact: DistilledPrompt) -> None:
    """Print how the run ended and what a reader should know."""
    if artifact.finish_reason is not None:
        typer.echo(f"Ended with: {artifact.finish_reason}, {_ENDS[artifact.finish_reason]}")
    for note in artifact.notes:
        typer.echo(f"Note: {printable(note)}")
    typer.echo()


_ENDS: dict[FinishReason, str] = {
    "converged": "no further change of the rules helped",
    "no_gain": "the rules brought no detectable gain",
    "ceiling": "nothing was left to gain",
    "budget": "a limit was reached",
    "reviewed": "a person decided about the rules",
}


def rules_list(artifact: DistilledPrompt) -> RenderableType:
    """The rules of a prompt under their labels, in its order."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if not artifact.rules:
        return Text("No rules: the prompt is the zero-shot one.")
    parts: list[RenderableType] = [Text("Rules", style="bold")]
    for label in artifact.task.label_names:
        parts.append(Text(f"  {label}" if artifact.rules_for(label) else f"  {label}: none"))
        for rule in artifact.rules_for(label):
            behind = f"({rule.id}, from {count(rule.support, 'example')})"
            parts.append(Padding(Text(f"{printable(rule.condition)} {behind}"), (0, 0, 0, 4)))
    return Group(*parts)


def verdict_line(verdict: Verdict) -> str:
    """The label that was decided, with all probabilities; the kind of failure where there is none."""
    if verdict.failure is not None:
        return f"failed ({verdict.failure.kind})"
    ordered = sorted((verdict.probabilities or {}).items(), key=lambda item: -item[1])
    chances = ", ".join(f"{label} {probability:.2f}" for label, probability in ordered)
    decision = verdict.label or f"{verdict.status}, most likely {verdict.predicted_label}"
    return f"-> {decision}" + (f"   ({chances})" if chances else "")


def verdict_row(task: Task, value: TaskInput, verdict: Verdict) -> str:
    """One classified input as a line of a table, as wide as the terminal: label, probability, text."""
    text = value if isinstance(value, str) else "; ".join(f"{name}: {part}" for name, part in value.items())
    label = verdict.label or (f"? {verdict.predicted_label}" if verdict.predicted_label else verdict.status)
    if verdict.failure is not None:
        text = f"{verdict.failure.kind}: {text}"
    width = max(len("abstained"), *(len(name) + 2 for name in task.label_names))
    chance = "" if verdict.confidence is None else f"{verdict.confidence:.2f}"
    line = f"{label:<{width}}  {chance:>4}  {printable(text)}"
    columns = get_terminal_size().columns
    return line if len(line) <= columns else f"{line[: columns - 1]}…"
