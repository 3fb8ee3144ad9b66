"""`pld classify`: verdicts as JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

if TYPE_CHECKING:
    from langchain_pld.student.classifier import PLDClassifier

__all__ = ["classify"]

_BATCH = 64


def classify(
    artifact: Path = typer.Argument(help="A *.pld.json file."),
    texts: list[str] | None = typer.Argument(None, help="Texts to classify; lines of standard input when absent."),
    input_file: Path | None = typer.Option(None, "--input", help="Rows to classify (.jsonl or .csv)."),
    output_file: Path | None = typer.Option(None, "--output", help="Where to write; standard output when absent."),
    field: list[str] | None = typer.Option(None, help="name=value; for tasks with fields, once for each."),
    student: str | None = typer.Option(None, help="provider:name; the artifact's own student when absent."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of JSON lines."),
) -> None:
    """Classify texts: one JSON line each, in the order of the input.

    A failed verdict is a line too, and makes the exit code 1.

    Example: `pld classify chat.pld.json "Could you finish this on Sunday?"`
    """
    import json

    from langchain_pld.student.classifier import PLDClassifier

    classifier = PLDClassifier.from_artifact(artifact, student=student)
    failed = 0
    lines: list[dict[str, Any]] = []
    with _output(output_file) as out:
        for line in _verdicts(classifier, _inputs(classifier, texts, input_file, field)):
            failed += line["status"] == "failed"
            if as_json:
                lines.append(line)
            else:
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
        if as_json:
            out.write(json.dumps({"artifact": classifier.artifact.id, "verdicts": lines}, ensure_ascii=False) + "\n")
    if failed:
        from langchain_pld.cli.errors import CHECK_FAILED

        typer.echo(f"pld: {failed} texts have no verdict; see their `failure`", err=True)
        raise typer.Exit(CHECK_FAILED)


def _inputs(
    classifier: PLDClassifier, texts: list[str] | None, file: Path | None, fields: list[str] | None
) -> Iterable[tuple[str, Any]]:
    """(id, input) pairs from whichever source was given."""
    from langchain_pld.examples import read_examples

    given = [bool(texts), file is not None, bool(fields)]
    if sum(given) > 1:
        msg = "give texts, --input or --field, not several of them"
        raise typer.BadParameter(msg)
    if file is not None:
        return [(row.id, row.input) for row in read_examples(file, classifier.artifact.task)]
    if fields:
        pairs = [entry.partition("=") for entry in fields]
        if not all(sign for _, sign, _ in pairs):
            msg = "--field takes name=value"
            raise typer.BadParameter(msg)
        return [("1", {name: value for name, _, value in pairs})]
    if texts:
        return [(str(number), text) for number, text in enumerate(texts, 1)]
    if sys.stdin.isatty():
        msg = "nothing to classify: give texts, --input, or lines on standard input"
        raise typer.BadParameter(msg)
    return ((str(number), line.rstrip("\n")) for number, line in enumerate(sys.stdin, 1) if line.strip())


def _verdicts(classifier: PLDClassifier, inputs: Iterable[tuple[str, Any]]) -> Iterator[dict[str, Any]]:
    waiting = iter(inputs)
    while chunk := list(islice(waiting, _BATCH)):
        verdicts = classifier.batch([value for _, value in chunk], {"max_concurrency": 8})
        for (identity, _), verdict in zip(chunk, verdicts, strict=True):
            yield {"id": identity, **verdict.model_dump(mode="json", exclude_defaults=True)}


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file
