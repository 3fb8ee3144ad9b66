"""`pld feedback`: what people decided, as labelled examples for the next distillation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.hashed_texts import KeyVariable, TextFile, inputs_by_hash
from langchain_pld.cli.options import Json, LabelColumn, TextColumn, check_writable, columns
from langchain_pld.cli.printing import complain, print_json
from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_pld.examples import Example
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "app"]

EXAMPLES = """\b
Examples:
  pld feedback import --task chat.yaml --audit audit.jsonl --train train.jsonl \\
      --validation validation.jsonl --test test.jsonl --out from-people.jsonl
  pld feedback import --task chat.yaml --audit audit.jsonl --texts messages.jsonl --key-env AUDIT_KEY \\
      --validation validation.jsonl --out from-people.jsonl
  pld feedback import --task chat.yaml --store store.sqlite --validation validation.jsonl --out new.jsonl

\b
The answers are those that people gave when a guard asked them. An audit log holds texts only if it was
set up to; otherwise --texts finds them by their hash. A text that is in one of the named files is left
out, and so is one to which people gave different labels."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Turn what people decided into labelled examples.")


@app.command("import", epilog=EXAMPLES)
def import_feedback(
    task: Path = typer.Option(..., "--task", metavar="TASK.yaml", help="The task of the guard that asked."),
    out: Path = typer.Option(..., "--out", metavar="FILE", help="Where the rows go: JSON lines."),
    audit: list[Path] | None = typer.Option(None, "--audit", metavar="FILE", help="An audit log; may be repeated."),
    store: list[Path] | None = typer.Option(
        None, "--store", metavar="FILE", help="The SQLite Store of a guardrail graph; may be repeated."
    ),
    guard: list[str] | None = typer.Option(
        None, "--guard", metavar="NAME", help="The guards to read.", show_default="the one named like the task"
    ),
    texts: TextFile = None,
    key_env: KeyVariable = None,
    train: Path | None = typer.Option(None, metavar="FILE", help="Leave out texts that are in these rows."),
    validation: Path | None = typer.Option(None, metavar="FILE", help="Leave out texts that are in these rows."),
    test: Path | None = typer.Option(None, metavar="FILE", help="Leave out texts that are in these rows."),
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    as_json: Json = False,
) -> None:
    """Write people's answers to a guard's questions as labelled rows."""
    from langchain_pld.distillation.roles import text_key
    from langchain_pld.examples import read_examples
    from langchain_pld.task import Task

    if not audit and not store:
        raise InputError("nothing to import from: give --audit, --store, or both")
    definition = Task.from_yaml(task)
    check_writable(out)
    names = columns(text=text_column, label=label_column)
    files = {"train": train, "validation": validation, "test": test}
    roles = {
        text_key(definition, row.input): role
        for role, file in files.items()
        if file is not None
        for row in read_examples(file, definition, columns=names)
    }
    if validation is None and test is None:
        complain("note: without --validation and --test nobody can tell whether a text is in these rows")
    counts: Counter[str] = Counter()
    known = inputs_by_hash(definition, texts, names, key_env)
    answers = [
        *(row for log in audit or () for row in _audited(definition, log, guard or [definition.name], known, counts)),
        *(row for file in store or () for row in _stored(definition, file)),
    ]
    counts["answers"] += len(answers)
    rows = _merged(definition, answers, roles, counts)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"id": row.id, **({"text": row.input} if isinstance(row.input, str) else row.input), "label": row.label}
        for row in rows
    ]
    # ASCII, so that no character of a text can break a line.
    out.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    counts["written"] = len(rows)
    if as_json:
        labels = Counter(row.label for row in rows)
        print_json({"output": str(out), "counts": {name: counts[name] for name in _COUNTS}, "labels": labels})
        return
    for name, meaning in _COUNTS.items():
        if counts[name] or name in ("answers", "written"):
            typer.echo(f"{counts[name]} {meaning}")


_COUNTS = {
    "answers": "answers of people",
    "without_text": "of the log without their text (pass it with --texts, and --key-env where hashes have a key)",
    "without_label": "that give no label of the task",
    "repeated": "that repeat another",
    "contradictory": "texts with different labels, left out",
    "train": "texts that are train rows, left out",
    "validation": "texts that are validation rows, left out",
    "test": "texts that are test rows, left out",
    "written": "rows written",
}


def _audited(
    task: Task, log: Path, guards: list[str], known: dict[str, Any], counts: Counter[str]
) -> Iterator[Example]:
    """The labelled texts of a log's answers; a later answer about a text replaces an earlier one."""
    from langchain_pld.examples import Example
    from langchain_pld.guardrail.audit import read_audit_log

    answers: dict[str, dict[str, Any]] = {}
    for number, record in read_audit_log(log):
        if record["event"] == "person" and record.get("guard") in guards and record.get("answer") != "unreadable":
            answers[str(record.get("input_hash") or number)] = record
    for key, record in answers.items():
        # A logged text is laid out already: fields cannot be had back from it.
        value = known.get(key, None if task.fields else record.get("text"))
        if record.get("label") not in task.label_names:
            counts["without_label"] += 1
        elif not value:
            counts["without_text"] += 1
        else:
            yield Example(id=f"person-{key[:16]}", input=value, label=record["label"])


def _stored(task: Task, file: Path) -> Iterator[Example]:
    import sqlite3

    from langchain_pld.errors import MissingExtraError

    try:
        from langgraph.store.sqlite import SqliteStore
    except ImportError as error:
        raise MissingExtraError.of("langgraph-checkpoint-sqlite", "distill") from error

    from langchain_pld.guardrail.human_review import reviewed_examples

    if not file.is_file():
        msg = f"no Store at {file}"
        raise InputError(msg)
    try:
        with SqliteStore.from_conn_string(str(file)) as store:
            yield from reviewed_examples(store, task)
    except sqlite3.Error as error:
        msg = f"{file} is no SQLite Store of LangGraph: {error}"
        raise InputError(msg) from error


def _merged(task: Task, answers: Iterable[Example], roles: dict[str, str], counts: Counter[str]) -> list[Example]:
    """One row a text, in the order of the texts' first answers."""
    from langchain_pld.distillation.roles import text_key
    from langchain_pld.errors import ExampleError
    from langchain_pld.examples import ExampleSet

    by_text: dict[str, list[Example]] = {}
    for row in answers:
        try:
            ExampleSet.of([row], task)
        except ExampleError as error:
            complain(f"left out: {error}")
        else:
            by_text.setdefault(text_key(task, row.input), []).append(row)
    rows: list[Example] = []
    for key, same in by_text.items():
        counts["repeated"] += len(same) - 1
        if key in roles:
            counts[roles[key]] += 1
        elif len({row.label for row in same}) > 1:
            counts["contradictory"] += 1
            complain(f"{same[0].id}: people gave different labels: {', '.join(str(row.label) for row in same)}")
        else:
            rows.append(same[0])
    return rows
