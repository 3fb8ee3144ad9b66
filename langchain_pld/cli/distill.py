"""`pld distill`: labelled files to an artifact, in a run that can be resumed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from langchain_pld.cli.errors import complain, stoppable
from langchain_pld.errors import PLDError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.estimate import Estimate
    from langchain_pld.distillation.plan import Effort, Plan
    from langchain_pld.distillation.roles import Role
    from langchain_pld.distillation.run_directory import RunDirectory, RunRecord
    from langchain_pld.examples import ExampleSet
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "check_writable", "distill", "say_skipped", "show_scores"]

EXAMPLES = """\b
Examples:
  pld distill task.yaml --train train.jsonl --validation validation.jsonl --test test.jsonl \\
      --teacher google_genai:gemini-2.5-pro --student ollama:gemma3:4b --out chat.pld.json
  pld distill task.yaml --train train.csv --validation validation.csv --out chat.pld.json \\
      --student embedded:/models/my-model.gguf --effort medium --max-usd 2 --json
  pld distill --resume .pld/runs/chat-20261124-0900-1f3c

\b
Rows have the columns text (or the task's fields) and label; id and group are optional. No text may
stand in two of the files. Without a detectable gain on the validation rows the prompt without rules
stays, and the artifact says so.

\b
A run that was stopped goes on with --resume: what it paid for is not paid again. A run that reaches
a --max limit ends with the best prompt so far."""

_EMBEDDED = "embedded:qwen2.5-coder-1.5b"


def distill(
    task: Path | None = typer.Argument(
        None, metavar="TASK.yaml", help="Task file: name, instructions, labels with descriptions."
    ),
    train: Path | None = typer.Option(None, metavar="FILE", help="Rows that the teacher may see (.jsonl or .csv)."),
    validation: Path | None = typer.Option(
        None, metavar="FILE", help="Rows for selection and calibration; 50 or more."
    ),
    test: Path | None = typer.Option(
        None, metavar="FILE", help="Rows that are read once, at the end, for the reported scores."
    ),
    teacher: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Writes the rules, as provider:name."),
    student: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Will decide, as provider:name."),
    out: Path | None = typer.Option(None, metavar="FILE", help="The artifact to write, e.g. chat.pld.json."),
    effort: str = typer.Option("light", metavar="light|medium|heavy", help="How much work is done."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    max_calls: int | None = typer.Option(None, min=0, help="Model calls at most."),
    max_tokens: int | None = typer.Option(None, min=0, help="Tokens at most, read and written."),
    max_usd: float | None = typer.Option(None, min=0, help="US dollars at most, by the price table."),
    max_minutes: float | None = typer.Option(None, min=0, help="Minutes of work at most."),
    prices: Path | None = typer.Option(
        None, metavar="FILE", help="Your prices (YAML), USD for a million tokens: NAME: {input: 1.25, output: 10}."
    ),
    run: Path | None = typer.Option(
        None, metavar="DIR", help="Where the run is kept; .pld/runs/NAME-DATE beside the artifact when absent."
    ),
    database: str | None = typer.Option(
        None, metavar="URL", help="Keep the run's state in Postgres, as postgresql://…; SQLite files when absent."
    ),
    resume: Path | None = typer.Option(
        None, metavar="DIR", help="Go on with this run; needs nothing else, but --database if it was started with one."
    ),
    skip_bad_rows: bool = typer.Option(False, "--skip-bad-rows", help="Leave unusable rows out instead of stopping."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Distil labelled examples into a tested prompt.

    The teacher explains examples and writes rules; the student tries them on the validation rows; the rules are kept
    only when they beat the prompt without rules.
    """
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.spending import ledger_table
    from langchain_pld.cli.tables import output, rules_list
    from langchain_pld.distillation.budget import Budget
    from langchain_pld.distillation.estimate import estimate
    from langchain_pld.distillation.plan import PLANS
    from langchain_pld.distillation.prices import read_prices
    from langchain_pld.distillation.roles import check_roles
    from langchain_pld.distillation.run_directory import RunDirectory, RunFile, RunRecord, new_run_id
    from langchain_pld.examples import read_examples
    from langchain_pld.task import Task

    if resume is not None:
        given = {"TASK.yaml": task, "--train": train, "--validation": validation, "--test": test, "--out": out}
        _refuse({**given, "--run": run})
        directory = RunDirectory(resume)
        record = directory.record()
        directory.check_files(record)
        if record.postgres and database is None:
            msg = f"the run in {resume} has its state in Postgres; give the URL again, it may hold a password"
            raise typer.BadParameter(msg, param_hint="--database")
    else:
        _require({"TASK.yaml": task, "--train": train, "--validation": validation, "--out": out})
        assert task is not None and train is not None and validation is not None and out is not None
        directory = RunDirectory(run) if run is not None else RunDirectory.fresh(out)
        budget = Budget(calls=max_calls, tokens=max_tokens, usd=max_usd, minutes=max_minutes)
        own = read_prices(prices) if prices is not None else {}
        Task.from_yaml(task)
        files: dict[Role, Path | None] = {"train": train, "validation": validation, "test": test}
        record = RunRecord(
            run_id=new_run_id(directory.path.name),
            task=RunFile.of(task),
            data={role: RunFile.of(file) for role, file in files.items() if file is not None},
            skip_bad_rows=skip_bad_rows,
            teacher=teacher,
            student=student,
            plan=PLANS[_effort(effort)].model_copy(update={"budget": budget, "prices": own}),
            seed=seed,
            out=out.absolute(),
            postgres=database is not None,
        )
    definition = Task.from_yaml(record.task.path)
    sets = {
        role: read_examples(file.path, definition, skip_bad_rows=record.skip_bad_rows)
        for role, file in record.data.items()
    }
    say_skipped(sets)
    # All that can be wrong is found before a model is fetched or paid.
    check_roles(definition, sets)
    check_writable(record.out)
    _check_priced(record)
    expected = estimate(
        definition,
        record.plan,
        train=sets["train"],
        validation=sets["validation"],
        test=sets.get("test"),
        teacher=record.teacher,
        student=record.student,
    )
    writer = ready_model(record.teacher)
    decider = writer if record.student == record.teacher else ready_model(record.student)
    if resume is None:
        directory.begin(record)
    go_on = f"go on with: pld distill --resume {directory.path}"
    with (
        directory.held(),
        stoppable(lambda: f"{record.out} is not written yet; what was done is kept, {go_on}"),
        StepBars() as bars,
    ):
        _say_plan(bars, directory, record.plan, expected)
        first = f"generate: {record.teacher} reads the first examples"
        bars.wait(first if resume is None else "the run goes on where it was")
        try:
            artifact = asyncio.run(_run(directory, record, definition, sets, writer, decider, database, bars))
        except PLDError:
            bars.say(f"What was done is kept; {go_on}")
            raise
    artifact.save(record.out)
    if as_json:
        typer.echo(json.dumps(_summary(artifact, record.out, sets, directory.path, expected)))
        return
    show_scores(artifact)
    output().print(rules_list(artifact))
    output().print(ledger_table(artifact.ledger))
    typer.echo(f'\nArtifact {artifact.id} is in {record.out}. Next: pld classify {record.out} "a text"')


async def _run(
    directory: RunDirectory,
    record: RunRecord,
    task: Task,
    sets: Mapping[Role, ExampleSet],
    teacher: BaseChatModel,
    student: BaseChatModel,
    database: str | None,
    bars: StepBars,
) -> DistilledPrompt:
    from langchain_pld.distillation.distill import adistill

    async with directory.opened(postgres=database) as (store, checkpointer):
        return await adistill(
            task,
            train=sets["train"],
            validation=sets["validation"],
            test=sets.get("test"),
            teacher=teacher,
            student=student,
            effort=record.plan,
            seed=record.seed,
            on_progress=bars.distilling,
            store=store,
            checkpointer=checkpointer,
            run_id=record.run_id,
        )


def say_skipped(sets: Mapping[Role, ExampleSet] | Mapping[str, ExampleSet]) -> None:
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


def _say_plan(bars: StepBars, directory: RunDirectory, plan: Plan, expected: Estimate) -> None:
    from langchain_pld.cli.spending import estimate_table
    from langchain_pld.distillation.prices import TABLE_DATE

    bars.say(f"Plan: {plan.describe()}")
    bars.show(estimate_table(expected))
    bars.say(f"Prices are of {TABLE_DATE}, or yours; minutes are for the default embedded model on two idle cores.")
    bars.say(f"Run:  {directory.path}\n")


def _summary(
    artifact: DistilledPrompt, out: Path, sets: Mapping[Role, ExampleSet], run: Path, expected: Estimate
) -> dict[str, object]:
    parts = artifact.model_dump(mode="json", include={"finish_reason", "notes", "scores", "rules", "ledger", "seed"})
    skipped = [row.model_dump() for rows in sets.values() for row in rows.skipped]
    costs = [line.cost for line in artifact.ledger]
    return {
        "artifact": str(out),
        "id": artifact.id,
        "run": str(run),
        **parts,
        "cost_usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        "estimate": expected.model_dump(mode="json")["lines"],
        "skipped": skipped,
    }


def _effort(name: str) -> Effort:
    from langchain_pld.distillation.plan import PLANS

    for known in PLANS:
        if known == name:
            return known
    msg = f"effort must be one of {', '.join(PLANS)}, got {name!r}"
    raise typer.BadParameter(msg, param_hint="--effort")


def _check_priced(record: RunRecord) -> None:
    """A budget in dollars needs the prices of both models."""
    from langchain_pld.distillation.prices import price_of

    for model in dict.fromkeys((record.teacher, record.student)):
        if record.plan.budget.usd is not None and price_of(model, record.plan.prices) is None:
            msg = f"the price of {model} is not known; give it with --prices"
            raise typer.BadParameter(msg, param_hint="--max-usd")


def _require(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is None:
            msg = "it is missing; a new run needs TASK.yaml, --train, --validation and --out, an old one --resume DIR"
            raise typer.BadParameter(msg, param_hint=name)


def _refuse(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is not None:
            msg = "a resumed run has this from its start; give --resume alone, or start a new run"
            raise typer.BadParameter(msg, param_hint=name)
