"""`pld replay`: what an artifact would decide today about the records of an audit log."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.classify import load_classifier
from langchain_pld.cli.columns import TextColumn, columns
from langchain_pld.cli.errors import CHECK_FAILED, complain, stoppable

if TYPE_CHECKING:
    from langchain_pld.student.classifier import PLDClassifier
    from langchain_pld.task import Task
    from langchain_pld.verdict import Verdict

__all__ = ["EXAMPLES", "replay"]

EXAMPLES = """\b
Examples:
  pld replay audit.jsonl --artifact chat.pld.json --texts messages.jsonl
  pld replay audit.jsonl --artifact new.pld.json --texts texts.txt --policy policy.yaml
  AUDIT_KEY=… pld replay audit.jsonl --artifact chat.pld.json --texts t.csv --key-env AUDIT_KEY

\b
A line tells hash, status and label then and now, the greatest change of a probability, and whether the
outcome differs; with --policy it tells outcome and action too. Records that hold their text need no --texts.
Where anything differs, the exit code is 1."""

_CALLS = 8


def replay(
    log: Path = typer.Argument(metavar="LOG", help="An audit log: JSON lines."),
    artifact: Path = typer.Option(..., "--artifact", metavar="FILE", help="The *.pld.json file to decide with now."),
    texts: Path | None = typer.Option(
        None, "--texts", metavar="FILE", help="Texts to find the records' hashes in: a table, or a text a line."
    ),
    text_column: TextColumn = None,
    policy: Path | None = typer.Option(None, "--policy", metavar="FILE", help="A policy, to compare actions as well."),
    student: str | None = typer.Option(
        None, metavar="MODEL", help="provider:name; the artifact's own student when absent."
    ),
    key_env: str | None = typer.Option(
        None, "--key-env", metavar="NAME", help="The environment variable with the key of the log's hashes."
    ),
    every: bool = typer.Option(False, "--all", help="Show the records that come out the same, too."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Decide again about what an audit log recorded, and show what would differ."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.guardrail.policy import GuardrailPolicy

    prompt = DistilledPrompt.load(artifact)
    judged_by = GuardrailPolicy.from_yaml(policy) if policy is not None else None
    if judged_by is not None:
        judged_by.check_labels(prompt.task.label_names)
    records = list(_records(log))
    known = _texts(prompt.task, texts, text_column, _key(key_env))
    found = [(record, _input(prompt.task, record, known)) for record in records]
    at_hand = [(record, value) for record, value in found if value is not None]
    if records and not at_hand:
        complain(f"none of the {len(records)} records' texts is at hand; pass them with --texts (and --key-env)")
        raise typer.Exit(CHECK_FAILED)
    classifier = load_classifier(artifact, student or prompt.student.spec)

    counts: Counter[str] = Counter({"records": len(records), "without_text": len(records) - len(at_hand)})
    lines = []
    with stoppable(lambda: "a replay keeps nothing"):
        verdicts = asyncio.run(_classify(classifier, [value for _, value in at_hand]))
    for (record, _), verdict in zip(at_hand, verdicts, strict=True):
        line = _compared(record, verdict)
        if judged_by is not None:
            outcome, _label = judged_by.judge(verdict)
            line["outcome"] = {"then": record.get("outcome"), "now": outcome}
            line["action"] = {"then": record.get("action"), "now": judged_by.action_for(outcome)}
        line["differs"] = any(line[name]["then"] != line[name]["now"] for name in _KEYS if name in line)
        counts["differs" if line["differs"] else "same"] += 1
        if line["differs"] or every:
            lines.append(line)
    summary = {name: counts[name] for name in ("records", "without_text", "same", "differs")}
    if as_json:
        typer.echo(json.dumps({"artifact": prompt.id, "student": classifier.spec, "counts": summary, "lines": lines}))
    else:
        for line in lines:
            typer.echo(json.dumps(line))
        complain(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in summary.items()))
    if counts["differs"]:
        raise typer.Exit(CHECK_FAILED)


_KEYS = ("status", "label", "outcome", "action")


def _records(log: Path) -> Iterator[dict[str, Any]]:
    """The checks in a log for which a model was asked."""
    from langchain_pld.guardrail.audit import read_audit_log

    for _, record in read_audit_log(log):
        if record["event"] == "check" and record.get("status") is not None:
            yield record


def _texts(task: Task, path: Path | None, text_column: str | None, key: bytes | None) -> dict[str, Any]:
    """Hash of the laid-out text to the input."""
    from langchain_pld.examples import read_examples
    from langchain_pld.guardrail.audit import input_hash
    from langchain_pld.row_files import KINDS
    from langchain_pld.student.inputs import input_text

    if path is None:
        return {}
    inputs: list[Any]
    if path.suffix.lower() in KINDS:
        inputs = [row.input for row in read_examples(path, task, columns=columns(text=text_column), skip_bad_rows=True)]
    else:
        inputs = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    return {input_hash(input_text(task, value), key=key): value for value in inputs}


def _key(name: str | None) -> bytes | None:
    if name is None:
        return None
    value = os.environ.get(name)
    if not value:
        msg = f"the environment variable {name} is not set"
        raise typer.BadParameter(msg, param_hint="--key-env")
    return value.encode()


def _input(task: Task, record: dict[str, Any], known: dict[str, Any]) -> Any:
    """What a record's check was about; `None` where it is not at hand."""
    found = known.get(str(record.get("input_hash")))
    # A recorded text is laid out already: fields cannot be had back from it.
    return record.get("text") if found is None and not task.fields else found


def _compared(record: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    then, now = record.get("probabilities"), verdict.probabilities
    changed = None
    if isinstance(then, dict) and now is not None:
        both = [(then.get(label), probability) for label, probability in now.items()]
        changed = max((abs(old - new) for old, new in both if isinstance(old, int | float)), default=None)
    return {
        "time": record.get("time"),
        "guard": record.get("guard"),
        "input_hash": record.get("input_hash"),
        "artifact": {"then": record.get("artifact"), "now": verdict.artifact_id},
        "status": {"then": record.get("status"), "now": verdict.status},
        "label": {"then": record.get("verdict"), "now": verdict.label or verdict.predicted_label},
        "probability_change": changed,
    }


async def _classify(classifier: PLDClassifier, inputs: list[Any]) -> list[Verdict]:
    calls = 1 if classifier.in_process else _CALLS
    return await classifier.abatch(inputs, {"max_concurrency": calls})
