"""`pld distill`: labelled files to an artifact for each student, in a run that can be resumed."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from langchain_pld.cli.columns import GroupColumn, IdColumn, LabelColumn, TextColumn, columns
from langchain_pld.cli.errors import complain, stoppable
from langchain_pld.errors import PLDError

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.estimate import Estimate
    from langchain_pld.distillation.roles import Role
    from langchain_pld.distillation.run_directory import RunDirectory, RunRecord
    from langchain_pld.examples import ExampleSet
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "check_writable", "distill", "say_skipped", "show_scores"]

EXAMPLES = """\b
Examples:
  pld distill task.yaml --train train.jsonl --validation validation.jsonl --test test.jsonl \\
      --teacher google_genai:gemini-2.5-pro --student ollama:gemma3:4b --out chat.pld.json
  pld distill task.yaml --data rows.csv --out chat.pld.json \\
      --student embedded:/models/my-model.gguf --effort medium --max-usd 2 --json
  pld distill task.yaml --data rows.csv --out prompts \\
      --student ollama:gemma3:1b --student ollama:gemma3:4b
  pld distill task.yaml --data export.csv --text-column "Comment Text" --label-column Category \\
      --out chat.pld.json
  pld distill task.yaml --data rows.csv --out chat.pld.json --teacher google_genai:gemini-2.5-pro --dry-run
  pld distill --resume .pld/runs/chat-20261124-0900-1f3c --max-calls 5000

\b
Rows have the columns text (or the task's fields) and label; id and group are optional. Other names
are given with --text-column and its kin. Files: .jsonl, .json, .csv (also with ; tab or |), .tsv, .parquet,
.xlsx. No text may stand in two of the files. One file, --data, is split by group, text and label with the seed: 50 % to
train, 30 % to validate, 20 % to test. Without a detectable gain on the validation rows the prompt
without rules stays, or the incumbent, and the artifact says so.

\b
Several students share the teacher's work; each gets an artifact of its own in the folder --out.

\b
A run that was stopped goes on with --resume: what it paid for is not paid again. A run that reaches
a --max limit ends with the best prompt so far; with --resume and a larger limit it goes on."""

_EMBEDDED = "embedded:qwen2.5-coder-1.5b"

_VALIDATION, _TEST = 0.3, 0.2
"""Shares of the labelled rows of one file."""

_WITH_RESUME = {"resume", "database", "as_json", "max_calls", "max_tokens", "max_usd", "max_minutes", "yes"}
"""What may be given for a run that has begun."""


def distill(
    context: typer.Context,
    task: Path | None = typer.Argument(
        None, metavar="TASK.yaml", help="Task file: name, instructions, labels with descriptions."
    ),
    train: Path | None = typer.Option(None, metavar="FILE", help="Rows that the teacher may see."),
    validation: Path | None = typer.Option(
        None, metavar="FILE", help="Rows for selection and calibration; 50 or more."
    ),
    test: Path | None = typer.Option(
        None, metavar="FILE", help="Rows that are read once, at the end, for the reported scores."
    ),
    data: Path | None = typer.Option(None, metavar="FILE", help="One file of rows to split, instead of those three."),
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    teacher: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Writes the rules, as provider:name."),
    student: list[str] = typer.Option(
        [_EMBEDDED], metavar="MODEL", help="Will decide, as provider:name; can be given several times."
    ),
    out: Path | None = typer.Option(
        None, metavar="PATH", help="The artifact to write, e.g. chat.pld.json; with several students a folder."
    ),
    effort: Literal["light", "medium", "heavy"] = typer.Option("light", help="How much work is done."),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    incumbent: Path | None = typer.Option(
        None, metavar="ARTIFACT", help="The prompt in use now, which a new one has to beat."
    ),
    require_review: bool = typer.Option(
        False, "--require-review", help="A person must accept the rules before they can be used."
    ),
    max_risk: float | None = typer.Option(
        None, metavar="RISK", help="Share of wrong verdicts allowed, e.g. 0.05: the student abstains where unsure."
    ),
    clustering: Literal["auto", "paper", "kmeans"] = typer.Option("auto", help="How drafted conditions are grouped."),
    embeddings: str | None = typer.Option(
        None, metavar="MODEL", help="Vectors of drafted conditions, as provider:name; words are compared when absent."
    ),
    max_calls: int | None = typer.Option(None, min=0, help="Model calls at most."),
    max_tokens: int | None = typer.Option(None, min=0, help="Tokens at most, read and written."),
    max_usd: float | None = typer.Option(None, min=0, help="US dollars at most, by published prices or yours."),
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
        None, metavar="DIR", help="Go on with this run; takes larger limits, and --database if it was started with one."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print plan and estimate; fetch, ask and write nothing."),
    confirm_above: float = typer.Option(
        1.0, metavar="USD", min=0, help="Ask before a run that may cost more; --max-usd is an answer already."
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help="Begin without asking, whatever the run may cost."),
    skip_bad_rows: bool = typer.Option(False, "--skip-bad-rows", help="Leave unusable rows out instead of stopping."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Distil labelled examples into a tested prompt.

    The teacher explains examples and writes rules; the student tries them on the validation rows; the rules are kept
    only when they beat the prompt without rules.
    """
    from langchain_pld.distillation.budget import Budget
    from langchain_pld.distillation.plan import PLANS
    from langchain_pld.distillation.prices import read_prices
    from langchain_pld.distillation.run_directory import RunDirectory, RunFile, RunRecord, new_run_id
    from langchain_pld.models.resolve import absolute_spec
    from langchain_pld.task import Task

    limits = {"calls": max_calls, "tokens": max_tokens, "usd": max_usd, "minutes": max_minutes}
    if resume is not None:
        _refuse_beside_resume(context)
        directory = RunDirectory(resume)
        record = directory.record()
        directory.check_files(record)
        if record.postgres and database is None:
            msg = f"the run in {resume} has its state in Postgres; give the URL again, it may hold a password"
            raise typer.BadParameter(msg, param_hint="--database")
        given = {name: limit for name, limit in limits.items() if limit is not None}
        plan = record.plan.model_copy(update={"budget": record.plan.budget.model_copy(update=given)})
        record = record.model_copy(update={"plan": plan})
    else:
        files = {"train": train, "validation": validation, "test": test} if data is None else {"all": data}
        _require({"TASK.yaml": task, **_data_options(train, validation, test, data), "--out": out})
        assert task is not None and out is not None
        _check_risk(max_risk)
        directory = RunDirectory(run) if run is not None else RunDirectory.fresh(out)
        plan = PLANS[effort].model_copy(
            update={
                "budget": Budget.model_validate(limits),
                "prices": read_prices(prices) if prices is not None else {},
                "require_review": require_review,
                "max_risk": max_risk,
                "clustering": clustering,
            }
        )
        Task.from_yaml(task)
        record = RunRecord(
            run_id=new_run_id(directory.path.name),
            task=RunFile.of(task),
            data={role: RunFile.of(file) for role, file in files.items() if file is not None},
            incumbent=None if incumbent is None else RunFile.of(incumbent),
            columns=columns(text=text_column, label=label_column, id=id_column, group=group_column),
            skip_bad_rows=skip_bad_rows,
            teacher=absolute_spec(teacher),
            students=tuple(student),
            embeddings=embeddings,
            plan=plan,
            seed=seed,
            out=out.absolute(),
            postgres=database is not None,
        )
    job = _prepare(record)
    if dry_run:
        _show_plan(job, as_json=as_json)
        return
    if resume is None and not yes:
        _confirm(job, confirm_above)
    _distil(directory, job, begins=resume is None, database=database, as_json=as_json)


@dataclass(frozen=True)
class _Job:
    """A run, with all that its record names at hand; no model is fetched or asked for it."""

    record: RunRecord
    task: Task
    read: dict[str, ExampleSet]
    """The files."""
    sets: dict[Role, ExampleSet]
    """The rows of each role."""
    incumbent: DistilledPrompt | None
    embeddings: Embeddings | None
    expected: Estimate


def _prepare(record: RunRecord) -> _Job:
    """Check all that can be wrong before a model is fetched or paid."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.estimate import estimate
    from langchain_pld.distillation.roles import check_roles
    from langchain_pld.distillation.rules.embeddings import embeddings_spec, resolve_embeddings
    from langchain_pld.distillation.splitting import split_examples
    from langchain_pld.examples import read_examples
    from langchain_pld.task import Task

    task = Task.from_yaml(record.task.path)
    read: dict[str, ExampleSet] = {
        role: read_examples(file.path, task, columns=record.columns, labelled=True, skip_bad_rows=record.skip_bad_rows)
        for role, file in record.data.items()
    }
    say_skipped(read)
    sets: dict[Role, ExampleSet] = {role: read[role] for role in record.data if role != "all"}
    if "all" in read:
        sets = split_examples(task, read["all"], validation=_VALIDATION, test=_TEST, seed=record.seed)
    check_roles(task, sets)
    _check_students(record)
    incumbent = None if record.incumbent is None else DistilledPrompt.load(record.incumbent.path)
    vectors = None if record.embeddings is None else resolve_embeddings(record.embeddings)
    embeds = None if vectors is None else embeddings_spec(vectors)
    _check_priced(record, embeds)
    expected = estimate(
        task,
        record.plan,
        train=sets["train"],
        validation=sets["validation"],
        test=sets.get("test"),
        teacher=record.teacher,
        students=record.students,
        embeddings=embeds,
        incumbent=incumbent is not None,
    )
    return _Job(record, task, read, sets, incumbent, vectors, expected)


def _show_plan(job: _Job, *, as_json: bool) -> None:
    """What the run would do, on standard output."""
    from langchain_pld.cli.spending import estimate_table
    from langchain_pld.cli.tables import output

    if as_json:
        planned = {
            "plan": job.record.plan.model_dump(mode="json"),
            "rows": {role: len(rows) for role, rows in job.sets.items()},
            "estimate": job.expected.model_dump(mode="json")["lines"],
            "cost_usd": job.expected.cost,
        }
        typer.echo(json.dumps(planned))
        return
    typer.echo(f"Plan: {job.record.plan.describe()}")
    typer.echo(f"Rows: {', '.join(f'{len(rows)} {role}' for role, rows in job.sets.items())}")
    output().print(estimate_table(job.expected))
    typer.echo("Nothing was fetched, asked or written.")


def _confirm(job: _Job, limit: float) -> None:
    """Ask whether a run may cost what it may cost; nobody to ask is a no.

    Raises:
        typer.BadParameter: It costs more than the limit, and there is nobody to ask.
        typer.Abort: The answer is no.
    """
    from langchain_pld.cli.spending import money

    # A model without a known price adds nothing; the plan says that its price is unknown.
    cost = sum(line.cost or 0.0 for line in job.expected.lines)
    if job.record.plan.budget.usd is not None or cost <= limit:
        return
    if not sys.stdin.isatty():
        msg = (
            f"the run may cost {money(cost)} USD, and there is nobody to ask; give --yes, a limit with --max-usd, or a "
            "larger --confirm-above. --dry-run shows the estimate"
        )
        raise typer.BadParameter(msg, param_hint="--confirm-above")
    typer.confirm(f"The run may cost {money(cost)} USD. Begin?", abort=True, err=True)


def _distil(directory: RunDirectory, job: _Job, *, begins: bool, database: str | None, as_json: bool) -> None:
    """Do the run, write and show what comes out."""
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.students import adistill_many

    record, sets, expected = job.record, job.sets, job.expected
    models = {spec: ready_model(spec) for spec in dict.fromkeys((record.teacher, *record.students))}
    if begins:
        directory.begin(record)
    go_on = f"go on with: pld distill --resume {shlex.quote(str(directory.path))}"

    async def work() -> list[DistilledPrompt]:
        async with directory.opened(postgres=database) as (store, checkpointer):
            made = await adistill_many(
                job.task,
                train=sets["train"],
                validation=sets["validation"],
                test=sets.get("test"),
                teacher=models[record.teacher],
                students=[models[spec] for spec in record.students],
                effort=record.plan,
                seed=record.seed,
                incumbent=job.incumbent,
                embeddings=job.embeddings,
                on_progress=bars.distilling,
                store=store,
                checkpointer=checkpointer,
                run_id=record.run_id,
            )
            return list(made.values())

    with (
        directory.held(),
        stoppable(lambda: f"{record.out} is not written yet; what was done is kept, {go_on}"),
        StepBars() as bars,
    ):
        directory.rewrite(record)
        if begins:
            _say_plan(bars, directory, record, sets, expected)
        else:
            bars.say(f"Run:  {directory.path}, budget: {record.plan.budget.describe()}")
        first = f"generate: {record.teacher} reads the first examples"
        bars.wait(first if begins else "the run goes on where it was")
        try:
            artifacts = asyncio.run(work())
        except PLDError:
            bars.say(f"What was done is kept; {go_on}")
            raise
    made = {record.artifact_of(spec): artifact for spec, artifact in zip(record.students, artifacts, strict=True)}
    for path, artifact in made.items():
        artifact.save(path)
    if as_json:
        typer.echo(json.dumps(_summary(made, list(job.read.values()), directory.path, expected)))
    else:
        _show(made, directory.path)


def say_skipped(sets: Mapping[str, ExampleSet]) -> None:
    """Tell on standard error how files were read and which rows were left out: how many, and the first few reasons."""
    for role, rows in sets.items():
        for note in rows.notes:
            complain(f"note: {note}")
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
    from langchain_pld.cli.tables import output, score_tables

    for table in score_tables(artifact.scores):
        output().print(table)
    _show_end(artifact)


def _show_end(artifact: DistilledPrompt) -> None:
    from langchain_pld.cli.tables import printable

    typer.echo(f"Ended with: {artifact.finish_reason or 'no reason given'}")
    for note in artifact.notes:
        typer.echo(f"Note: {printable(note)}")
    typer.echo()


def _show(made: Mapping[Path, DistilledPrompt], run: Path) -> None:
    """Print one table of all scores, then for each student how it ended and its rules, then what was spent."""
    from langchain_pld.cli.spending import ledger_table
    from langchain_pld.cli.tables import output, rules_list, score_tables
    from langchain_pld.distillation.run.ledger import total

    console = output()
    for table in score_tables(card for artifact in made.values() for card in artifact.scores):
        console.print(table)
    for artifact in made.values():
        if len(made) > 1:
            typer.echo(f"Student {artifact.student.spec}")
        _show_end(artifact)
        console.print(rules_list(artifact))
        typer.echo()
    console.print(ledger_table(total(line for artifact in made.values() for line in artifact.ledger)))
    typer.echo()
    for path, artifact in made.items():
        typer.echo(f"Artifact {artifact.id} is in {path}. {_next(path, artifact, run, several=len(made) > 1)}")


def _next(path: Path, artifact: DistilledPrompt, run: Path, *, several: bool) -> str:
    """What to do with an artifact."""
    if artifact.signature_problem is None:
        return f'Next: pld classify {shlex.quote(str(path))} "a text"'
    which = f" --student {artifact.student.spec}" if several else ""
    return f"Its rules wait for a person. Next: pld review {shlex.quote(str(run))}{which}"


def _say_plan(
    bars: StepBars, directory: RunDirectory, record: RunRecord, sets: Mapping[Role, ExampleSet], expected: Estimate
) -> None:
    from langchain_pld.cli.spending import estimate_table

    bars.say(f"Plan: {record.plan.describe()}")
    bars.say(f"Rows: {', '.join(f'{len(rows)} {role}' for role, rows in sets.items())}")
    bars.show(estimate_table(expected))
    bars.say("Prices are the published ones, or yours; minutes are for the default embedded model on two idle cores.")
    bars.say(f"Run:  {directory.path}\n")


def _summary(
    made: Mapping[Path, DistilledPrompt], read: list[ExampleSet], run: Path, expected: Estimate
) -> dict[str, Any]:
    """What came out, for programs: of one student as one object, of several as a list under `students`."""
    students = [_summary_of(path, artifact) for path, artifact in made.items()]
    costs = [line.cost for artifact in made.values() for line in artifact.ledger]
    return {
        **(students[0] if len(students) == 1 else {"students": students}),
        "run": str(run),
        "cost_usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        "estimate": expected.model_dump(mode="json")["lines"],
        "skipped": [row.model_dump() for rows in read for row in rows.skipped],
    }


def _summary_of(path: Path, artifact: DistilledPrompt) -> dict[str, Any]:
    parts = artifact.model_dump(mode="json", include={"finish_reason", "notes", "scores", "rules", "ledger", "seed"})
    named = {"artifact": str(path), "id": artifact.id, "student": artifact.student.spec}
    return {**named, "signed": artifact.signature_problem is None, **parts}


def _check_students(record: RunRecord) -> None:
    """Each student needs a file of its own that can be written."""
    paths = [record.artifact_of(spec) for spec in record.students]
    if len(set(paths)) < len(paths):
        msg = f"two of {', '.join(record.students)} are the same, or would write the same file"
        raise typer.BadParameter(msg, param_hint="--student")
    if len(paths) > 1 and (record.out.suffix == ".json" or record.out.is_file()):
        msg = f"{len(paths)} students write a file each; give a folder, not {record.out.name}"
        raise typer.BadParameter(msg, param_hint="--out")
    for path in paths:
        check_writable(path)


def _check_priced(record: RunRecord, embeddings: str | None) -> None:
    """A budget in dollars needs the prices of all models."""
    from langchain_pld.distillation.prices import price_of

    for model in dict.fromkeys((record.teacher, *record.students, *([embeddings] if embeddings else ()))):
        if record.plan.budget.usd is not None and price_of(model, record.plan.prices) is None:
            msg = f"the price of {model} is not known; give it with --prices"
            raise typer.BadParameter(msg, param_hint="--max-usd")


def _check_risk(alpha: float | None) -> None:
    if alpha is not None and not 0 < alpha < 1:
        msg = f"a risk lies between 0 and 1, got {alpha:g}"
        raise typer.BadParameter(msg, param_hint="--max-risk")


def _data_options(
    train: Path | None, validation: Path | None, test: Path | None, data: Path | None
) -> dict[str, Path | None]:
    """The options that say where the rows are, of which none may be missing."""
    if data is None:
        return {"--train": train, "--validation": validation}
    if train or validation or test:
        msg = "it is split into train, validation and test rows; give it alone, or the other files"
        raise typer.BadParameter(msg, param_hint="--data")
    return {}


def _require(given: Mapping[str, object]) -> None:
    for name, value in given.items():
        if value is None:
            msg = (
                "it is missing; a new run needs TASK.yaml, --train, --validation (or --data) and --out, an old one "
                "--resume DIR"
            )
            raise typer.BadParameter(msg, param_hint=name)


def _refuse_beside_resume(context: typer.Context) -> None:
    """A run that has begun takes nothing but larger limits."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in _WITH_RESUME:
            msg = "a resumed run has this from its start; give --resume and limits alone, or start a new run"
            raise typer.BadParameter(msg, param_hint=parameter.opts[0])
