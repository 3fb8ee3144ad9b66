"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from langchain_pld.artifact import DistilledPrompt, ScoreCard

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["rules_table", "score_table"]


def score_table(cards: Iterable[ScoreCard], title: str) -> Table:
    """Scores side by side, with 95 % intervals."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in ("prompt", "scores", "macro-F1", "accuracy", "ECE", "failed", "prompt tokens", "ms a text"):
        table.add_column(column, justify="left" if column in {"prompt", "scores"} else "right", no_wrap=True)
    for card in cards:
        table.add_row(
            card.name,
            "-" if card.student == "-" else "calibrated" if card.calibrated else "raw",
            str(card.macro_f1),
            str(card.accuracy),
            "-" if card.ece is None else f"{card.ece:.3f}",
            str(card.failed),
            "-" if card.prompt_tokens is None else str(card.prompt_tokens),
            "-" if card.ms_per_text is None else f"{card.ms_per_text:.0f}",
        )
    return table


def rules_table(artifact: DistilledPrompt) -> Table:
    """The rules of a prompt, in its order."""
    from rich.table import Table

    table = Table(title="Rules", title_justify="left", show_lines=True)
    for column in ("id", "label", "rule", "examples behind it"):
        table.add_column(column, overflow="fold")
    for rule in artifact.rules:
        table.add_row(rule.id, rule.label, rule.condition, str(rule.support))
    return table
