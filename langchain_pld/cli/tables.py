"""What people read on standard output: score cards, rules, verdicts."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from langchain_pld.artifact import DistilledPrompt, ScoreCard
from langchain_pld.task import Task, TaskInput
from langchain_pld.verdict import Verdict

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

__all__ = [
    "PIPE_WIDTH",
    "output",
    "printable",
    "rules_list",
    "score_table",
    "score_tables",
    "verdict_line",
    "verdict_lines",
    "verdict_row",
]

PIPE_WIDTH = 110
"""Columns of what is no terminal."""


def output() -> Console:
    """Standard output; in a pipe, as wide as the widest table needs."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def score_tables(cards: Iterable[ScoreCard]) -> list[Table]:
    """One table a data role, in the order of the cards; the title tells rows and student.

    Cards of several students stand in one table, a row for each student and prompt; those of the plain baselines,
    which no student has to do with, once.
    """
    roles: dict[str, dict[tuple[str, str, bool], ScoreCard]] = {}
    for card in cards:
        roles.setdefault(card.role, {}).setdefault((card.student, card.name, card.calibrated), card)
    return [score_table(list(group.values()), f"{role} rows") for role, group in roles.items()]


def score_table(cards: list[ScoreCard], what: str) -> Table:
    """Score cards of the same rows side by side.

    Args:
        cards: The cards, at least one.
        what: What the rows are; stands in the title, before their number and the student's name. Several students have
            a column instead.
    """
    from rich import box
    from rich.table import Table

    students = dict.fromkeys(card.student for card in cards if card.student != "-")
    level = cards[0].macro_f1.level
    several = len(students) > 1
    named = [] if several else [f"student {name}" for name in students]
    parts = [f"{what}: {cards[0].rows}", *named, f"{level:.0%} intervals"]
    table = Table(title=", ".join(parts), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    if several:
        table.add_column("student", overflow="fold")
    table.add_column("prompt", overflow="fold")
    failed = any(card.failed for card in cards)
    columns = ("macro-F1", "accuracy", "ECE", "prompt\ntokens", "ms a\ntext", *(["failed"] if failed else []))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for card in cards:
        kind = "" if card.student == "-" else ", calibrated" if card.calibrated else ", raw"
        cells = [
            str(card.macro_f1),
            str(card.accuracy),
            "-" if card.ece is None else f"{card.ece:.3f}",
            "-" if card.prompt_tokens is None else str(card.prompt_tokens),
            "-" if card.ms_per_text is None else f"{card.ms_per_text:.0f}" if card.ms_per_text >= 1 else "< 1",
            *([str(card.failed)] if failed else []),
        ]
        table.add_row(*([card.student] if several else []), card.name + kind, *cells)
    return table


def rules_list(artifact: DistilledPrompt) -> RenderableType:
    """The rules of a prompt under their labels, in its order."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    if not artifact.rules:
        return Text("No rules: the prompt is the zero-shot one.")
    parts: list[RenderableType] = [Text("Rules, strongest first", style="bold")]
    for label in artifact.task.label_names:
        parts.append(Text(f"  {label}" if artifact.rules_for(label) else f"  {label}: none"))
        for rule in artifact.rules_for(label):
            behind = f"({rule.id}, from {rule.support} example{'s' * (rule.support != 1)})"
            parts.append(Padding(Text(f"{printable(rule.condition)} {behind}"), (0, 0, 0, 4)))
    return Group(*parts)


def verdict_lines(text: str, verdict: Verdict, artifact: DistilledPrompt) -> RenderableType:
    """One classified text: the text, its label with all probabilities, the rules that argue for the label."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = [Text(printable(text), style="bold")]
    if verdict.failure is not None:
        parts.append(Text(f"  failed ({verdict.failure.kind}): {printable(verdict.failure.message)}"))
        return Group(*parts)
    parts.append(Text(f"  {verdict_line(verdict)}"))
    parts += [
        Padding(Text(f"rule: {printable(rule.condition)}"), (0, 0, 0, 5))
        for rule in artifact.rules_for(verdict.predicted_label or "")
    ]
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
    if isinstance(value, str):
        text = value
    else:
        text = "; ".join(f"{name}: {part}" for name, part in value.items())
    label = verdict.label or (f"? {verdict.predicted_label}" if verdict.predicted_label else verdict.status)
    if verdict.failure is not None:
        text = f"{verdict.failure.kind}: {text}"
    width = max(len("abstained"), *(len(name) + 2 for name in task.label_names))
    chance = "" if verdict.confidence is None else f"{verdict.confidence:.2f}"
    line = f"{label:<{width}}  {chance:>4}  {printable(text)}"
    wide = get_terminal_size().columns
    return line if len(line) <= wide else f"{line[: wide - 1]}…"


def printable(text: str) -> str:
    """A text of unknown origin as one line that cannot steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
