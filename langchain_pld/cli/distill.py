"""`pld distill`: labelled files to an artifact."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from langchain_pld.cli.errors import complain, stoppable

if TYPE_CHECKING:
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.plan import Effort
    from langchain_pld.examples import ExampleSet

__all__ = ["EXAMPLES", "check_writable", "distill", "say_skipped", "show_scores"]

EXAMPLES = """\b
Examples:
  pld distill task.yaml --train train.jsonl --validation validation.jsonl --test test.jsonl \\
      --teacher google_genai:gemini-2.5-pro --student ollama:gemma3:4b --out chat.pld.json
  pld distill task.yaml --train train.csv --validation validation.csv --out chat.pld.json \\
      --student embedded:/models/my-model.gguf --effort medium --json

\b
Rows have the columns text (or the task's fields) and label; id and group are optional. No text may
stand in two of the files. Without a detectable gain on the validation rows the prompt without rules
stays, and the artifact says so."""

_EMBEDDED = "embedded:qwen2.5-coder-1.5b"


def distill(
    task: Path = typer.Argument(metavar="TASK.yaml", help="Task file: name, instructions, labels with descriptions."),
    train: Path = typer.Option(..., metavar="FILE", help="Rows that the teacher may see (.jsonl or .csv)."),
    validation: Path = typer.Option(..., metavar="FILE", help="Rows for selection and calibration; 50 or more."),
    test: Path | None = typer.Option(
        None, metavar="FILE", help="Rows that are read once, at the end, for the reported scores."
    ),
    teacher: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Writes the rules, as provider:name."),
    student: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Will decide, as provider:name."),
    out: Path = typer.Option(..., metavar="FILE", help="The artifact to write, e.g. chat.pld.json."),
    effort: str = typer.Option("light", metavar="light|medium|heavy", help="How much work is done."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    skip_bad_rows: bool = typer.Option(False, "--skip-bad-rows", help="Leave unusable rows out instead of stopping."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Distil labelled examples into a tested prompt.

    The teacher explains examples and writes rules; the student tries them on the validation rows; the rules are kept
    only when they beat the prompt without rules.
    """
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.tables import output, rules_list
    from langchain_pld.distillation.distill import distill as run
    from langchain_pld.distillation.roles import check_roles
    from langchain_pld.examples import read_examples
    from langchain_pld.task import Task

    chosen = _effort(effort)
    definition = Task.from_yaml(task)
    sets = {
        role: read_examples(file, definition, skip_bad_rows=skip_bad_rows)
        for role, file in {"train": train, "validation": validation, "test": test}.items()
        if file is not None
    }
    say_skipped(sets)
    # All that can be wrong is found before a model is fetched or paid.
    check_roles(definition, sets)  # type: ignore[arg-type]  # the keys are roles
    check_writable(out)
    writer = ready_model(teacher)
    decider = writer if student == teacher else ready_model(student)
    with stoppable(lambda: f"nothing was written to {out}"), StepBars() as bars:
        bars.wait(f"generate: {teacher} reads the first examples")
        artifact = run(
            definition,
            train=sets["train"],
            validation=sets["validation"],
            test=sets.get("test"),
            teacher=writer,
            student=decider,
            effort=chosen,
            seed=seed,
            on_progress=bars.distilling,
        )
    artifact.save(out)
    if as_json:
        typer.echo(json.dumps(_summary(artifact, out, sets)))
        return
    show_scores(artifact)
    output().print(rules_list(artifact))
    typer.echo(f'\nArtifact {artifact.id} is in {out}. Next: pld classify {out} "a text"')


def say_skipped(sets: Mapping[str, ExampleSet]) -> None:
    """Tell on standard error which rows were left out: how many, and the first few reasons."""
    for role, rows in sets.items():
        if rows.skipped:
            shown = "; ".join(map(str, rows.skipped[:3]))
            more = f"; and {len(rows.skipped) - 3} more" if len(rows.skipped) > 3 else ""
            complain(f"{role}: skipped {len(rows.skipped)} bad rows: {shown}{more}")


def check_writable(out: Path) -> None:
    """Find out before any work whether the artifact can be written.

    Raises:
        typer.BadParameter: It cannot.
    """
    if out.is_dir():
        msg = f"{out} is a folder; give a file name"
        raise typer.BadParameter(msg, param_hint="--out")
    # The folders that are missing are made, inside the nearest one that is there.
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        msg = f"cannot write into {folder}"
        raise typer.BadParameter(msg, param_hint="--out")


def show_scores(artifact: DistilledPrompt) -> None:
    """Print what was measured, how the run ended and what a reader should know."""
    from langchain_pld.cli.tables import output, printable, score_tables

    console = output()
    for table in score_tables(artifact.scores):
        console.print(table)
    typer.echo(f"Ended with: {artifact.finish_reason or 'no reason given'}")
    for note in artifact.notes:
        typer.echo(f"Note: {printable(note)}")
    typer.echo()


def _summary(artifact: DistilledPrompt, out: Path, sets: Mapping[str, ExampleSet]) -> dict[str, object]:
    parts = artifact.model_dump(mode="json", include={"finish_reason", "notes", "scores", "rules", "ledger", "seed"})
    skipped = [row.model_dump() for rows in sets.values() for row in rows.skipped]
    return {"artifact": str(out), "id": artifact.id, **parts, "skipped": skipped}


def _effort(name: str) -> Effort:
    from langchain_pld.distillation.plan import PLANS

    for known in PLANS:
        if known == name:
            return known
    msg = f"effort must be one of {', '.join(PLANS)}, got {name!r}"
    raise typer.BadParameter(msg, param_hint="--effort")
