"""`pld distill`: labelled files to an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from langchain_pld.distillation.plan import Effort

__all__ = ["distill"]


def distill(
    task: Path = typer.Argument(help="Task file (YAML): name, instructions, labels with descriptions."),
    train: Path = typer.Option(..., help="Rows that the teacher may see (.jsonl or .csv)."),
    validation: Path = typer.Option(..., help="Rows for selection and calibration; 50 or more."),
    test: Path | None = typer.Option(None, help="Rows that are read once, at the end, for the reported scores."),
    teacher: str = typer.Option("embedded:qwen2.5-coder-1.5b", help="Writes the rules, as provider:name."),
    student: str = typer.Option("embedded:qwen2.5-coder-1.5b", help="Will decide, as provider:name."),
    out: Path = typer.Option(..., help="The artifact to write, e.g. chat.pld.json."),
    effort: str = typer.Option("light", help="light, medium or heavy."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    skip_bad_rows: bool = typer.Option(False, help="Leave unusable rows out instead of stopping."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Distil labelled examples into a tested prompt.

    The teacher explains examples and writes rules; the student tries them on the validation rows; the rules are kept
    only when they beat the prompt without rules.

    Example: `pld distill task.yaml --train train.jsonl --validation validation.jsonl --test test.jsonl
    --teacher google_genai:gemini-2.5-pro --student ollama:gemma3:4b --out chat.pld.json`
    """
    import json

    from rich.console import Console

    from langchain_pld.cli.progress import run_bars
    from langchain_pld.cli.tables import rules_table, score_table
    from langchain_pld.distillation.distill import distill as run
    from langchain_pld.examples import read_examples
    from langchain_pld.models.resolve import resolve_chat_model
    from langchain_pld.task import Task

    chosen = _effort(effort)
    definition = Task.from_yaml(task)
    sets = {
        role: read_examples(file, definition, skip_bad_rows=skip_bad_rows)
        for role, file in {"train": train, "validation": validation, "test": test}.items()
        if file is not None
    }
    for role, rows in sets.items():
        if rows.skipped:
            typer.echo(f"{role}: skipped {len(rows.skipped)} bad rows, first: {rows.skipped[0]}", err=True)
    writer = resolve_chat_model(teacher)
    decider = writer if student == teacher else resolve_chat_model(student)
    with run_bars() as show:
        artifact = run(
            definition,
            train=sets["train"],
            validation=sets["validation"],
            test=sets.get("test"),
            teacher=writer,
            student=decider,
            effort=chosen,
            seed=seed,
            on_progress=show,
        )
    artifact.save(out)
    if as_json:
        summary = {"artifact": str(out), "id": artifact.id, "finish_reason": artifact.finish_reason}
        typer.echo(json.dumps({**summary, "scores": [card.model_dump() for card in artifact.scores]}))
        return
    console = Console()
    for role in ("validation", "test"):
        cards = [card for card in artifact.scores if card.role == role]
        if cards:
            console.print(score_table(cards, f"{role}: {cards[0].rows} rows, student {student}, 95 % intervals"))
    if artifact.rules:
        console.print(rules_table(artifact))
    for note in artifact.notes:
        console.print(note, highlight=False)
    console.print(f"Artifact {artifact.id} written to {out}", highlight=False)


def _effort(name: str) -> Effort:
    from langchain_pld.distillation.plan import PLANS

    for known in PLANS:
        if known == name:
            return known
    msg = f"effort must be one of {', '.join(PLANS)}, got {name!r}"
    raise typer.BadParameter(msg)
