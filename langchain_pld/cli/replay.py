"""`pld replay`: what an artifact would decide today about the records of an audit log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.classify import load_classifier
from langchain_pld.cli.errors import CHECK_FAILED, stoppable
from langchain_pld.cli.hashed_texts import KeyVariable, TextFile, inputs_by_hash
from langchain_pld.cli.options import Json, StudentModel, TextColumn, columns
from langchain_pld.cli.printing import complain, print_json

if TYPE_CHECKING:
    from langchain_pld.task import Task
    from langchain_pld.verdict import Verdict

__all__ = ["EXAMPLES", "replay"]

EXAMPLES = """\b
Examples:
  pld replay audit.jsonl --artifact chat.pld.json --texts messages.jsonl
  pld replay audit.jsonl --artifact new.pld.json --texts texts.txt --policy policy.yaml
  AUDIT_KEY=… pld replay audit.jsonl --artifact chat.pld.json --texts t.csv --key-env AUDIT_KEY

\b
Each line gives hash, status and label then and now, the greatest change of a probability, and whether the
outcome differs; with --policy, outcome and action as well. Records that hold their text need no --texts.
If anything differs, the exit code is 1."""

_CALLS = 8


def replay(
    log: Path = typer.Argument(metavar="LOG", help="An audit log: JSON lines."),
    artifact: Path = typer.Option(..., "--artifact", metavar="FILE", help="The *.pld.json file to decide with now."),
    texts: TextFile = None,
    text_column: TextColumn = None,
    policy: Path | None = typer.Option(None, "--policy", metavar="FILE", help="A policy, to compare actions as well."),
    student: StudentModel = None,
    key_env: KeyVariable = None,
    every: bool = typer.Option(False, "--all", help="Show the records that come out the same, too."),
    as_json: Json = False,
) -> None:
    """Decide again what an audit log recorded, and show what differs."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.guardrail.audit import read_audit_log
    from langchain_pld.guardrail.policy import GuardrailPolicy

    prompt = DistilledPrompt.load(artifact)
    rule = GuardrailPolicy.from_yaml(policy) if policy is not None else None
    if rule is not None:
        rule.check_labels(prompt.task.label_names)
    # The checks for which a model was asked.
    records = [one for _, one in read_audit_log(log) if one["event"] == "check" and one.get("status") is not None]
    known = inputs_by_hash(prompt.task, texts, columns(text=text_column), key_env)
    inputs = [_input(prompt.task, record, known) for record in records]
    at_hand = [(record, value) for record, value in zip(records, inputs, strict=True) if value is not None]
    if records and not at_hand:
        complain(f"the texts of all {len(records)} records are missing; pass them with --texts (and --key-env)")
        raise typer.Exit(CHECK_FAILED)
    classifier = load_classifier(artifact, student or prompt.student.spec)

    counts: Counter[str] = Counter({"records": len(records), "without_text": len(records) - len(at_hand)})
    lines = []
    with stoppable(lambda: "a replay keeps nothing"):
        calls = 1 if classifier.in_process else _CALLS
        verdicts = classifier.batch([value for _, value in at_hand], {"max_concurrency": calls})
    for (record, _), verdict in zip(at_hand, verdicts, strict=True):
        line = _compared(record, verdict)
        if rule is not None:
            outcome, _label = rule.judge(verdict)
            line["outcome"] = {"then": record.get("outcome"), "now": outcome}
            line["action"] = {"then": record.get("action"), "now": rule.action_for(outcome)}
        line["differs"] = any(line[name]["then"] != line[name]["now"] for name in _KEYS if name in line)
        counts["differs" if line["differs"] else "same"] += 1
        if line["differs"] or every:
            lines.append(line)
    summary = {name: counts[name] for name in ("records", "without_text", "same", "differs")}
    if as_json:
        print_json({"artifact": prompt.id, "student": classifier.spec, "counts": summary, "lines": lines})
    else:
        for line in lines:
            typer.echo(json.dumps(line))
        complain(", ".join(f"{name.replace('_', ' ')} {number}" for name, number in summary.items()))
    if counts["differs"]:
        raise typer.Exit(CHECK_FAILED)


_KEYS = ("status", "label", "outcome", "action")


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
