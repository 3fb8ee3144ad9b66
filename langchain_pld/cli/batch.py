"""`pld batch`: the request and response files of a teacher that answers later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.errors import CHECK_FAILED, stoppable
from langchain_pld.cli.options import Json, check_writable
from langchain_pld.cli.printing import complain, print_json, printable

if TYPE_CHECKING:
    from langchain_pld.models.batch import Responses
    from langchain_pld.models.batch_rows import BadRow
    from langchain_pld.models.gemini_batch import GeminiBatch

__all__ = ["EXAMPLES", "app"]

EXAMPLES = """\b
Examples:
  pld distill task.yaml --train train.jsonl --validation validation.jsonl --out chat.pld.json \\
      --teacher batch:answers
  pld batch status answers
  pld batch import answers from-the-provider.jsonl
  pld batch send answers --model gemini-2.5-pro
  pld distill --resume .pld/runs/chat-20261124-0900-1f3c

\b
A run with the teacher batch:DIR writes the questions of a step into DIR/requests and stops with exit
code 3. Rows of a response file may be those of OpenAI's or Gemini's batch interface, or written by
hand: {"custom_id": "…", "answer": {…}}. A row that cannot be used is reported with file, line, id and
reason, and its question stays open; all other rows count."""

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Questions and answers of a teacher that answers later."
)

_FOLDER = typer.Argument(metavar="DIR", help="The folder that --teacher batch:DIR names.")
_DONE = "All questions are answered. Next: pld distill --resume RUN"


@app.command("status")
def status(folder: Path = _FOLDER, as_json: Json = False) -> None:
    """Show which questions were asked, and which still wait for an answer."""
    from langchain_pld.models.batch import BatchFolder

    batch = BatchFolder(folder)
    asked, responses = batch.request_files(), batch.read_responses()
    files = {
        file: {
            "questions": len(questions),
            "answered": sum(question.id in responses.answers for question in questions),
            "failed": sum(responses.failed(question.id) for question in questions),
            "open": len(responses.open(question.id for question in questions)),
        }
        for file, questions in asked.items()
    }
    waiting = responses.open(batch.questions())
    if as_json:
        rows = [{"request_file": str(file), **counts} for file, counts in files.items()]
        print_json({"files": rows, "open": waiting, "bad_rows": _bad_rows(responses.bad)})
        return
    for file, counts in files.items():
        typer.echo(f"{file}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    _complain_about(responses.bad)
    if waiting:
        typer.echo(f"{len(waiting)} questions wait for an answer. Next: pld batch import {folder} FILE")
    elif asked:
        typer.echo(_DONE)
    else:
        typer.echo(f"Nothing was asked in {folder}.")


@app.command("validate")
def validate(
    folder: Path = _FOLDER,
    file: Path | None = typer.Argument(
        None, metavar="FILE", help="A response file; those in the folder already when absent."
    ),
    as_json: Json = False,
) -> None:
    """Check the rows of a response file; nothing is changed."""
    from langchain_pld.models.batch import BatchFolder

    batch = BatchFolder(folder)
    responses = batch.read_responses() if file is None else batch.check_file(file)
    _report(responses, None, as_json=as_json)


@app.command("import")
def import_answers(
    folder: Path = _FOLDER,
    file: Path = typer.Argument(metavar="FILE", help="A response file; it stays as it is."),
    as_json: Json = False,
) -> None:
    """Bring the usable rows of a response file into the folder, and report the others."""
    from langchain_pld.models.batch import BatchFolder

    batch = BatchFolder(folder)
    responses, taken = batch.import_file(file)
    _report(responses, taken, as_json=as_json, left=len(batch.open_questions()))


@app.command("send")
def send(
    folder: Path = _FOLDER,
    model: str = typer.Option(..., metavar="NAME", help="Gemini's name of the model, e.g. gemini-2.5-pro."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Wait for the answers; a job may take hours."),
) -> None:
    """Have the open questions answered through Gemini's batch interface; needs GOOGLE_API_KEY.

    A job goes on when this command is stopped: call it again to fetch the answers.
    """
    from langchain_pld.models.batch import BatchFolder
    from langchain_pld.models.gemini_batch import GeminiBatch, gemini_client

    batch = BatchFolder(folder)
    gemini = GeminiBatch(batch, gemini_client())
    for job in gemini.send(model.removeprefix("google_genai:")):
        typer.echo(f"{job.name}: {len(job.questions)} questions sent")
    with stoppable(lambda: "the jobs go on; fetch their answers with the same command"):
        while _fetched(gemini) and wait:
            time.sleep(POLL_S)
    waiting = batch.open_questions()
    typer.echo(f"{len(waiting)} questions still wait for an answer" if waiting else _DONE)
    _complain_about(batch.read_responses().bad)


@app.command("record")
def record_answers(
    folder: Path = _FOLDER,
    file: Path = typer.Argument(metavar="FILE", help="The recording to write, JSON lines."),
    about: str = typer.Option(..., metavar="TEXT", help="Where the answers come from, in one sentence."),
) -> None:
    """Make a recording of all answers, to be used as --teacher recorded:FILE on the same data with the same plan."""
    from langchain_pld.models.batch import BatchFolder
    from langchain_pld.models.recorded import record

    check_writable(file)
    typer.echo(f"{record(BatchFolder(folder), file, about=about)} answers in {file}")


POLL_S = 30.0
"""Seconds between two looks at the jobs."""


def _fetched(gemini: GeminiBatch) -> bool:
    """Fetch what is done; whether jobs are still running."""
    jobs = gemini.collect()
    for job in jobs:
        if not job.runs:
            where = f", answers in {job.responses}" if job.responses else ", no answers"
            typer.echo(f"{job.name}: {job.state.removeprefix('JOB_STATE_').lower()}{where}")
    return any(job.runs for job in jobs)


def _report(responses: Responses, taken: Path | None, *, as_json: bool, left: int | None = None) -> None:
    """Say what a response file holds.

    Raises:
        typer.Exit: Some rows cannot be used.
    """
    if as_json:
        summary = {"usable": sorted(responses.answers), "bad_rows": _bad_rows(responses.bad)}
        print_json(summary | ({} if left is None else {"written": taken and str(taken), "open": left}))
    else:
        where = f", now in {taken}" if taken else ""
        typer.echo(f"{len(responses.answers)} usable answers{where}; {len(responses.bad)} rows cannot be used")
        if left is not None:
            typer.echo(f"{left} questions still wait for an answer" if left else _DONE)
        _complain_about(responses.bad)
    if responses.bad:
        raise typer.Exit(CHECK_FAILED)


def _complain_about(bad: list[BadRow]) -> None:
    for row in bad:
        complain(printable(str(row)))


def _bad_rows(bad: list[BadRow]) -> list[dict[str, Any]]:
    return [{"file": str(row.file), "line": row.line, "id": row.id, "reason": row.reason} for row in bad]
