"""`pld classify`: verdicts as JSON lines, or as a table for a person."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.errors import CHECK_FAILED, stoppable
from langchain_pld.cli.options import ArtifactFile, IdColumn, Json, SkipBadRows, StudentModel, TextColumn, columns
from langchain_pld.cli.printing import complain, print_json, print_notes
from langchain_pld.errors import InputError

if TYPE_CHECKING:
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
A terminal shows a table: label, probability, text. A pipe or file gets a JSON line for each text, with
id, status (decided, abstained or failed), label, predicted_label, probabilities, confidence, failure
and more. Each line of standard input is a text, or a JSON object if the task has fields.
A text without a readable answer is a failed line, never a label, and makes the exit code 1."""

_CALLS = 8
"""Calls in flight to a student behind a server."""

_Input = tuple[str, Any]
"""Id, and what to classify."""


def classify(
    artifact: ArtifactFile,
    texts: list[str] | None = typer.Argument(
        None, metavar="TEXT", help="What to classify; without any, the lines of standard input."
    ),
    input_file: Path | None = typer.Option(None, "--input", metavar="FILE", help="A file of rows to classify."),
    output_file: Path | None = typer.Option(
        None, "--output", metavar="FILE", help="Where the JSON lines go.", show_default="standard output"
    ),
    field: list[str] | None = typer.Option(
        None, metavar="NAME=VALUE", help="A field of one input; once for each field of the task."
    ),
    text_column: TextColumn = None,
    id_column: IdColumn = None,
    student: StudentModel = None,
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Classify texts.

    Verdicts come in the order of the input. --json prints one object with counts, and the verdicts unless --output
    takes them.
    """
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.tables import verdict_row
    from langchain_pld.examples import read_examples

    prompt = DistilledPrompt.load(artifact)
    if input_file is not None and output_file is not None and input_file.resolve() == output_file.resolve():
        raise InputError("--output: would overwrite the input")
    if sum([bool(texts), input_file is not None, bool(field)]) > 1:
        raise InputError("give texts, --input or --field, not several of them")
    inputs: Sequence[_Input]
    if input_file is not None:
        names = columns(text=text_column, id=id_column)
        rows = read_examples(input_file, prompt.task, columns=names, skip_bad_rows=skip_bad_rows)
        print_notes([rows])
        inputs = [(row.id, row.input) for row in rows]
    elif field:
        inputs = [("1", _fields(field))]
    elif texts:
        inputs = [(str(number), text) for number, text in enumerate(texts, 1)]
    elif sys.stdin.isatty():
        raise InputError("nothing to classify: give texts, --input, --field, or lines on standard input")
    else:
        # Read to its end first: a slow writer must not keep calls in flight waiting.
        inputs = list(_standard_input(prompt.task))
    classifier = load_classifier(artifact, student or prompt.student.spec)

    collected: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    failures: Counter[str] = Counter()

    async def work() -> None:
        verdicts = _verdicts(classifier, [value for _, value in inputs])
        for identity, value in inputs:
            verdict = await anext(verdicts)
            line = {"id": identity, **verdict.model_dump(mode="json")}
            if lines is None:
                collected.append(line)
            elif lines.isatty():
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

    with ExitStack() as stack:
        stack.enter_context(stoppable(lambda: f"{counts.total()} verdicts are whole, in the order of the input"))
        lines = None if as_json else sys.stdout
        if output_file is not None:
            lines = stack.enter_context(output_file.open("w", encoding="utf-8"))
        progress = None
        # Where lines and bars would share a terminal, the lines are progress enough.
        if lines is None or not lines.isatty():
            progress = stack.enter_context(StepBars()).counting("student reads the texts")
        asyncio.run(work())

    if as_json:
        print_json(
            {
                "artifact": classifier.artifact.id,
                "student": classifier.spec,
                "counts": {status: counts[status] for status in ("decided", "abstained", "failed")},
                **({"verdicts": collected} if lines is None else {"output": str(output_file)}),
            }
        )
    if failures:
        kinds = ", ".join(f"{kind} {number}" for kind, number in failures.most_common())
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


def _fields(options: list[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or name in values:
            problem = "names a field twice" if sign else "is not NAME=VALUE"
            raise InputError(f"--field: {option!r} {problem}")
        values[name] = value
    return values


def _standard_input(task: Task) -> Iterator[_Input]:
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


async def _verdicts(classifier: PLDClassifier, values: Sequence[Any]) -> AsyncIterator[Verdict]:
    """The verdicts in the order of the values, each as soon as those before it are there."""
    # Not `abatch_as_completed`: it begins in any order, and the first line could come last.
    calls = 1 if classifier.in_process else _CALLS
    slots = asyncio.Semaphore(calls)

    async def decide(value: Any) -> Verdict:
        async with slots:
            return await classifier.ainvoke(value)

    begun: deque[asyncio.Task[Verdict]] = deque()
    for value in values:
        begun.append(asyncio.create_task(decide(value)))
        # More texts are begun than there are calls, so that one slow text does not idle the others.
        if len(begun) >= 4 * calls:
            yield await begun.popleft()
    while begun:
        yield await begun.popleft()
