"""`pld classify`: verdicts as JSON lines, or as a table for a person."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from langchain_pld.cli.columns import IdColumn, TextColumn, columns
from langchain_pld.cli.errors import CHECK_FAILED, complain, stoppable

if TYPE_CHECKING:
    from langchain_pld.examples import Columns
    from langchain_pld.student.classifier import PLDClassifier
    from langchain_pld.task import Task
    from langchain_pld.verdict import Verdict

__all__ = ["EXAMPLES", "classify", "load_classifier"]

EXAMPLES = """\b
Examples:
  pld classify chat.pld.json "Could you finish this on Sunday?"
  pld classify nda.pld.json --field premise="The Recipient may keep a copy." \\
      --field hypothesis="Copies are allowed."
  pld classify chat.pld.json --input rows.jsonl --output verdicts.jsonl
  cut -f2 messages.tsv | pld classify chat.pld.json | jq -r .label

\b
On a terminal each text is a line of a table: label, probability, text; with --json, or in a pipe
or file, JSON. A JSON line has id, status (decided, abstained or failed), label, predicted_label,
probabilities, confidence, failure and more. On standard input each line is a text, or a JSON object
where the task has fields.
A text without a readable answer is a failed line, never a label, and makes the exit code 1."""

_CALLS = 8
"""Calls in flight to a student behind a server."""

_Input = tuple[str, Any]
"""Id and what is to be classified."""


def classify(
    artifact: Path = typer.Argument(metavar="ARTIFACT", help="A *.pld.json file."),
    texts: list[str] | None = typer.Argument(
        None, metavar="TEXT", help="Texts to classify; lines of standard input when absent."
    ),
    input_file: Path | None = typer.Option(None, "--input", metavar="FILE", help="Rows to classify."),
    output_file: Path | None = typer.Option(
        None, "--output", metavar="FILE", help="Where the lines go; standard output when absent."
    ),
    field: list[str] | None = typer.Option(
        None, metavar="NAME=VALUE", help="A field of one input; once for each field that the task has."
    ),
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    student: str | None = typer.Option(
        None, metavar="MODEL", help="provider:name; the artifact's own student when absent."
    ),
    skip_bad_rows: bool = typer.Option(
        False, "--skip-bad-rows", help="Leave unusable rows of --input out instead of stopping."
    ),
    as_json: bool = typer.Option(
        False, "--json", help="One JSON object on standard output: counts, and the verdicts unless --output has them."
    ),
) -> None:
    """Classify texts: a JSON line each, in the order of the input; a line of a table on a terminal."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.tables import verdict_row

    prompt = DistilledPrompt.load(artifact)
    if input_file is not None and output_file is not None and input_file.resolve() == output_file.resolve():
        msg = "would overwrite the input"
        raise typer.BadParameter(msg, param_hint="--output")
    named = columns(text=text_column, id=id_column)
    inputs = _inputs(prompt.task, texts, input_file, field, named, skip_bad_rows=skip_bad_rows)
    classifier = load_classifier(artifact, student or prompt.student.spec)

    collected: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    with ExitStack() as stack:
        stack.enter_context(stoppable(lambda: f"{counts.total()} verdicts are whole, in the order of the input"))
        lines = None if as_json and output_file is None else stack.enter_context(_lines(output_file))
        progress = None
        # Where lines and bars would share a terminal, the lines are progress enough.
        if lines is None or not lines.isatty():
            progress = stack.enter_context(StepBars()).counting("student reads the texts")

        table = lines is not None and lines.isatty()

        def take(identity: str, value: Any, verdict: Verdict) -> None:
            line = {"id": identity, **verdict.model_dump(mode="json")}
            if lines is None:
                collected.append(line)
            elif table:
                typer.echo(verdict_row(prompt.task, value, verdict))
            else:
                # ASCII, so that no character of an id or a quotation can steer a terminal or fail to be encoded.
                lines.write(json.dumps(line) + "\n")
                lines.flush()
            counts[verdict.status] += 1
            if verdict.failure is not None:
                failures[verdict.failure.kind] += 1
            if progress:
                progress(counts.total(), len(inputs))

        asyncio.run(_classify(classifier, inputs, take))

    if as_json:
        summary: dict[str, Any] = {"artifact": classifier.artifact.id, "student": classifier.spec}
        summary["counts"] = {status: counts[status] for status in ("decided", "abstained", "failed")}
        typer.echo(json.dumps(summary | ({"verdicts": collected} if lines is None else {"output": str(output_file)})))
    if failures:
        kinds = ", ".join(f"{kind} {count}" for kind, count in failures.most_common())
        complain(f"{counts['failed']} of {counts.total()} texts have no verdict ({kinds}); see their `failure`")
        raise typer.Exit(CHECK_FAILED)


def load_classifier(artifact: Path, student: str) -> PLDClassifier:
    """The classifier of an artifact file; the student's model file is fetched if need be.

    Raises:
        ArtifactError: The file cannot be used.
        ModelSetupError: The student cannot be had.
    """
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.student.classifier import PLDClassifier

    return PLDClassifier.from_artifact(artifact, student=ready_model(student))


def _inputs(
    task: Task,
    texts: list[str] | None,
    file: Path | None,
    fields: list[str] | None,
    named: Columns,
    *,
    skip_bad_rows: bool,
) -> Sequence[_Input]:
    """The inputs from whichever source was given."""
    from langchain_pld.cli.distill import say_skipped
    from langchain_pld.examples import read_examples

    if sum([bool(texts), file is not None, bool(fields)]) > 1:
        msg = "give texts, --input or --field, not several of them"
        raise typer.BadParameter(msg)
    if file is not None:
        rows = read_examples(file, task, columns=named, skip_bad_rows=skip_bad_rows)
        say_skipped({"input": rows})
        return [(row.id, row.input) for row in rows]
    if fields:
        return [("1", _fields(fields))]
    if texts:
        return [(str(number), text) for number, text in enumerate(texts, 1)]
    if sys.stdin.isatty():
        msg = "nothing to classify: give texts, --input, --field, or lines on standard input"
        raise typer.BadParameter(msg)
    # Read to its end first: a slow writer must not keep calls in flight waiting.
    return list(_standard_input(task))


def _fields(given: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for entry in given:
        name, sign, value = entry.partition("=")
        if not sign or name in values:
            msg = f"{entry!r} {'names a field twice' if sign else 'is not NAME=VALUE'}"
            raise typer.BadParameter(msg, param_hint="--field")
        values[name] = value
    return values


def _standard_input(task: Task) -> Iterator[_Input]:
    from langchain_pld.errors import InputError

    for number, raw in enumerate(typer.get_binary_stream("stdin"), 1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            msg = f"standard input, line {number}: byte {error.start} is not UTF-8"
            raise InputError(msg) from error
        if line.strip():
            yield str(number), _object_or_text(line) if task.fields else line


def _object_or_text(line: str) -> Any:
    """The line's JSON object; a line that holds none stays a text, which the classifier refuses with the reason."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return line
    return value if isinstance(value, dict) else line


async def _classify(
    classifier: PLDClassifier, inputs: Sequence[_Input], take: Callable[[str, Any, Verdict], None]
) -> None:
    """Hand over the verdict of each input, in order, as soon as those before it are there."""
    # Not `abatch_as_completed`: it begins in any order, and the first line could come last.
    calls = 1 if classifier.in_process else _CALLS
    slots = asyncio.Semaphore(calls)

    async def ask(value: Any) -> Verdict:
        async with slots:
            return await classifier.ainvoke(value)

    begun: deque[tuple[str, Any, asyncio.Task[Verdict]]] = deque()
    for identity, value in inputs:
        begun.append((identity, value, asyncio.create_task(ask(value))))
        # More texts are begun than there are calls, so that one slow text does not idle the others.
        if len(begun) >= 4 * calls:
            await _take_first(begun, take)
    while begun:
        await _take_first(begun, take)


async def _take_first(
    begun: deque[tuple[str, Any, asyncio.Task[Verdict]]], take: Callable[[str, Any, Verdict], None]
) -> None:
    identity, value, task = begun.popleft()
    take(identity, value, await task)


@contextmanager
def _lines(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file
