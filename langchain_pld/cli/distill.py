"""`pld distill`: labelled files to an artifact for each student, in a run that can be resumed."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from langchain_pld.cli.errors import report, stoppable
from langchain_pld.cli.options import (
    GroupColumn,
    IdColumn,
    Json,
    LabelColumn,
    SkipBadRows,
    TextColumn,
    check_writable,
    columns,
)
from langchain_pld.cli.printing import complain, count, output, print_json, print_notes
from langchain_pld.errors import InputError, PLDError

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from rich.console import RenderableType

    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.estimate import Estimate
    from langchain_pld.distillation.roles import Role
    from langchain_pld.distillation.run_directory import RunDirectory, RunRecord
    from langchain_pld.examples import ExampleSet
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "distill"]

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
Rows have the columns text (or the task's fields) and label; id and group are optional. If yours have
other names, give them with --text-column and the like. Files: .jsonl, .json, .csv (also with ; tab or |),
.tsv, .parquet, .xlsx. No text may be in two of the files. One file, --data, is split by group, text and
label: 50 % to train, 30 % to validate, 20 % to test. Unless the rules bring a detectable gain on the
validation rows, the prompt without rules stays, or the incumbent, and the artifact says so.

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

_NEEDS = (
    "A new run needs TASK.yaml, --train and --validation (or --data), and --out; an old one goes on with --resume DIR"
)


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
    teacher: str = typer.Option(_EMBEDDED, metavar="MODEL", help="Writes the rules; as provider:name."),
    student: list[str] = typer.Option(
        [_EMBEDDED], metavar="MODEL", help="Will decide; as provider:name; may be repeated."
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
        None,
        metavar="MODEL",
        help="Embeds drafted conditions to group them; as provider:name.",
        show_default="their words are compared",
    ),
    max_calls: int | None = typer.Option(None, min=0, help="Most model calls."),
    max_tokens: int | None = typer.Option(None, min=0, help="Most tokens, read and written."),
    max_usd: float | None = typer.Option(None, min=0, help="Most US dollars, by published prices or yours."),
    max_minutes: float | None = typer.Option(None, min=0, help="Most minutes of work."),
    prices: Path | None = typer.Option(
        None, metavar="FILE", help="Your prices (YAML), USD for a million tokens: NAME: {input: 1.25, output: 10}."
    ),
    run: Path | None = typer.Option(
        None,
        metavar="DIR",
        help="Where the run is kept.",
        show_default=".pld/runs/NAME-DATE beside the artifact",
    ),
    database: str | None = typer.Option(
        None,
        metavar="URL",
        help="Keep the run's state in Postgres, as postgresql://…",
        show_default="SQLite files in the run's folder",
    ),
    resume: Path | None = typer.Option(
        None, metavar="DIR", help="Go on with this run; takes larger limits, and --database if it was started with one."
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Print plan and estimate; fetch, ask and write nothing."),
    confirm_above: float = typer.Option(
        1.0, metavar="USD", min=0, help="Ask before a run that may cost more; --max-usd is an answer already."
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help="Begin without asking, whatever the run may cost."),
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Distil labelled examples into a tested prompt.

    The teacher explains examples and writes rules; the student tries them on the validation rows; the rules are kept
    only if they beat the prompt without rules.
    """
    from langchain_pld.distillation.config import DistillConfig
    from langchain_pld.distillation.prices import read_prices
    from langchain_pld.distillation.run_directory import RunDirectory, RunFile, RunRecord, new_run_id
    from langchain_pld.models.resolve import absolute_spec
    from langchain_pld.task import Task

    if max_risk is not None and not 0 < max_risk < 1:
        raise InputError(f"--max-risk: a risk is between 0 and 1, not {max_risk:g}")
    settings = DistillConfig(
        effort=effort,
        max_calls=max_calls,
        max_tokens=max_tokens,
        max_usd=max_usd,
        max_minutes=max_minutes,
        max_risk=max_risk,
        require_review=require_review,
    )
    if resume is not None:
        directory = RunDirectory(resume)
        record = _record_of(context, directory, database)
        record = record.model_copy(update={"plan": settings.resolve_plan(record.plan)})
    else:
        if data is not None and (train or validation or test):
            raise InputError("--data is split into train, validation and test rows; give it alone, or the other files")
        needed = {"TASK.yaml": task, "--train": train or data, "--validation": validation or data, "--out": out}
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise InputError(f"missing: {', '.join(missing)}. {_NEEDS}")
        assert task is not None and out is not None
        directory = RunDirectory(run) if run is not None else RunDirectory.fresh(out)
        own_prices = read_prices(prices) if prices is not None else {}
        Task.from_yaml(task)
        files = {"train": train, "validation": validation, "test": test, "all": data}
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
            plan=settings.resolve_plan(None).model_copy(update={"prices": own_prices, "clustering": clustering}),
            seed=seed,
            out=out.absolute(),
            postgres=database is not None,
        )
    job = _job(record)
    if dry_run and as_json:
        lines = job.estimate.model_dump(mode="json")["lines"]
        rows = {role: len(rows) for role, rows in job.sets.items()}
        numbers = job.record.plan.model_dump(mode="json")
        print_json({"plan": numbers, "rows": rows, "estimate": lines, "cost_usd": job.estimate.cost})
    elif dry_run:
        output().print(_plan(job))
        typer.echo("Nothing was fetched, asked or written.")
    else:
        if resume is None and not yes:
            _confirm(job, confirm_above)
        _run(directory, job, begins=resume is None, database=database, as_json=as_json)


@dataclass(frozen=True)
class _Job:
    """A run with all that its record names; no model was fetched or asked for it."""

    record: RunRecord
    task: Task
    files: dict[str, ExampleSet]
    """The rows of each file."""
    sets: dict[Role, ExampleSet]
    """The rows of each role."""
    incumbent: DistilledPrompt | None
    embeddings: Embeddings | None
    estimate: Estimate


def _record_of(context: typer.Context, directory: RunDirectory, database: str | None) -> RunRecord:
    """What a run that goes on began with; it takes nothing but new limits."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in _WITH_RESUME:
            raise InputError(
                f"{parameter.opts[0]}: a resumed run has this from its start; give --resume and limits alone, or start "
                "a new run"
            )
    record = directory.record()
    directory.check_files(record)
    if record.postgres and database is None:
        raise InputError(
            f"--database: the run in {directory.path} has its state in Postgres; give the URL again, it may hold a "
            "password and was not kept"
        )
    return record


def _job(record: RunRecord) -> _Job:
    """Check all that can be wrong before a model is fetched or paid."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.estimate import estimate
    from langchain_pld.distillation.roles import check_roles
    from langchain_pld.distillation.rules.embeddings import embeddings_spec, resolve_embeddings
    from langchain_pld.distillation.splitting import split_examples
    from langchain_pld.examples import read_examples
    from langchain_pld.task import Task

    task = Task.from_yaml(record.task.path)
    files: dict[str, ExampleSet] = {
        role: read_examples(file.path, task, columns=record.columns, labelled=True, skip_bad_rows=record.skip_bad_rows)
        for role, file in record.data.items()
    }
    print_notes(files.values())
    for rows in files.values():
        unlabelled = [row.id for row in rows if row.label is None]
        if unlabelled:
            complain(
                f"note: {rows.source}: {count(len(unlabelled), 'row')} without a label, e.g. {unlabelled[0]!r}; the "
                "teacher votes on such rows where the labelled ones are few"
            )
    sets: dict[Role, ExampleSet] = {role: files[role] for role in record.data if role != "all"}
    if "all" in files:
        sets = split_examples(task, files["all"], validation=_VALIDATION, test=_TEST, seed=record.seed)
    check_roles(task, sets)
    _check_artifacts(record)
    incumbent = None if record.incumbent is None else DistilledPrompt.load(record.incumbent.path)
    vectors = None if record.embeddings is None else resolve_embeddings(record.embeddings)
    embeds = None if vectors is None else embeddings_spec(vectors)
    _check_prices(record, embeds)
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
    return _Job(record, task, files, sets, incumbent, vectors, expected)


def _check_artifacts(record: RunRecord) -> None:
    """Each student needs a file of its own that can be written."""
    paths = [record.artifact_of(spec) for spec in record.students]
    if len(set(paths)) < len(paths):
        raise InputError(f"--student: two of {', '.join(record.students)} are the same, or would write the same file")
    if len(paths) > 1 and (record.out.suffix == ".json" or record.out.is_file()):
        raise InputError(f"--out: {len(paths)} students write a file each; give a folder, not {record.out.name}")
    for path in paths:
        check_writable(path)


def _check_prices(record: RunRecord, embeddings: str | None) -> None:
    """A budget in dollars needs the prices of all models."""
    from langchain_pld.distillation.prices import price_of

    for model in dict.fromkeys((record.teacher, *record.students, *([embeddings] if embeddings else ()))):
        if record.plan.budget.usd is not None and price_of(model, record.plan.prices) is None:
            raise InputError(f"--max-usd: the price of {model} is not known; give it with --prices")


def _plan(job: _Job) -> RenderableType:
    """What the run will do, for a person."""
    from rich.console import Group
    from rich.text import Text

    from langchain_pld.cli.spending import estimate_table

    return Group(
        Text(f"Plan: {job.record.plan.describe()}"),
        Text(f"Rows: {', '.join(f'{len(rows)} {role}' for role, rows in job.sets.items())}"),
        estimate_table(job.estimate),
        Text("Prices are the published ones, or yours; minutes are for the default embedded model on two idle cores."),
    )


def _confirm(job: _Job, limit: float) -> None:
    """Ask whether a run may cost what it may cost; nobody to ask is a no.

    Raises:
        InputError: It costs more than the limit, and there is nobody to ask.
        typer.Abort: The answer is no.
    """
    from langchain_pld.cli.spending import money

    # A model without a known price adds nothing; the plan says that its price is unknown.
    cost = sum(line.cost or 0.0 for line in job.estimate.lines)
    if job.record.plan.budget.usd is not None or cost <= limit:
        return
    if not sys.stdin.isatty():
        raise InputError(
            f"the run may cost {money(cost)} USD, and there is nobody to ask; give --yes, a limit with --max-usd, or a "
            "larger --confirm-above. --dry-run shows the estimate"
        )
    typer.confirm(f"The run may cost {money(cost)} USD. Begin?", abort=True, err=True)


def _run(directory: RunDirectory, job: _Job, *, begins: bool, database: str | None, as_json: bool) -> None:
    """Do the run, write and show what comes out."""
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.distill import adistill_many

    record, sets = job.record, job.sets
    models = {spec: ready_model(spec) for spec in dict.fromkeys((record.teacher, *record.students))}
    if begins:
        directory.begin(record)
    go_on = f"what was done is kept, go on with: pld distill --resume {shlex.quote(str(directory.path))}"

    async def work() -> list[DistilledPrompt]:
        async with directory.open(postgres=database) as (store, checkpointer):
            done = await adistill_many(
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
            return list(done.values())

    with directory.lock(), stoppable(lambda: f"{record.out} is not written yet; {go_on}"), StepBars() as bars:
        directory.rewrite(record)
        if begins:
            bars.show(_plan(job))
            bars.say(f"Run:  {directory.path}\n")
            bars.wait(f"generate: {record.teacher} reads the first examples")
        else:
            bars.say(f"Run:  {directory.path}, budget: {record.plan.budget.describe()}")
            bars.wait("the run goes on where it was")
        try:
            prompts = asyncio.run(work())
        except PLDError as error:
            code = report(error)
            complain(go_on)
            raise typer.Exit(code) from error
    artifacts = {record.artifact_of(spec): prompt for spec, prompt in zip(record.students, prompts, strict=True)}
    for path, artifact in artifacts.items():
        artifact.save(path)
    if as_json:
        print_json(_summary(artifacts, job, directory.path))
    else:
        _show(artifacts, directory.path)


def _show(artifacts: Mapping[Path, DistilledPrompt], run: Path) -> None:
    """Print one table of all scores, then for each student how it ended and its rules, then what was spent."""
    from langchain_pld.cli.spending import ledger_table
    from langchain_pld.cli.tables import print_end, rules_list, score_tables
    from langchain_pld.distillation.run.spending import total

    console = output()
    for table in score_tables(card for artifact in artifacts.values() for card in artifact.scores):
        console.print(table)
    for artifact in artifacts.values():
        if len(artifacts) > 1:
            typer.echo(f"Student {artifact.student.spec}")
        print_end(artifact)
        console.print(rules_list(artifact))
        typer.echo()
    console.print(ledger_table(total(line for artifact in artifacts.values() for line in artifact.ledger)))
    typer.echo()
    for path, artifact in artifacts.items():
        which = f" --student {artifact.student.spec}" if len(artifacts) > 1 else ""
        next_step = f"Its rules wait for a person. Next: pld review {shlex.quote(str(run))}{which}"
        if artifact.signature_problem is None:
            next_step = f'Next: pld classify {shlex.quote(str(path))} "a text"'
        typer.echo(f"Artifact {artifact.id} is in {path}. {next_step}")


def _summary(artifacts: Mapping[Path, DistilledPrompt], job: _Job, run: Path) -> dict[str, Any]:
    """What came out, for programs: of one student as one object, of several as a list under `students`."""
    kept = {"finish_reason", "notes", "scores", "rules", "ledger", "seed"}
    students = [
        {
            "artifact": str(path),
            "id": artifact.id,
            "student": artifact.student.spec,
            "signed": artifact.signature_problem is None,
            **artifact.model_dump(mode="json", include=kept),
        }
        for path, artifact in artifacts.items()
    ]
    costs = [line.cost for artifact in artifacts.values() for line in artifact.ledger]
    return {
        **(students[0] if len(students) == 1 else {"students": students}),
        "run": str(run),
        "cost_usd": None if None in costs else sum(cost or 0.0 for cost in costs),
        "estimate": job.estimate.model_dump(mode="json")["lines"],
        "skipped": [row.model_dump() for rows in job.files.values() for row in rows.skipped],
    }
