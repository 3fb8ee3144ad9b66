"""Many labels, asked at once or in two stages: `python -m tests.benchmarks.many_labels --data FOLDER`.

The same rows are decided zero-shot with one letter a label and in two stages (the group's letter, then the label's).
What the two cost and how often they are right is told side by side. One letter serves only as many labels as the model
shows alternatives; two stages have no such limit, which is what they are for. The data are public benchmarks of third
parties and no part of the project: `FOLDER/SET/test.jsonl`, by default of CUAD's 18 clause types (CC BY 4.0).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from langchain_pld import PLDClassifier, Task, Verdict, resolve_chat_model
from langchain_pld.answer import AnswerFormat
from langchain_pld.evaluation.metrics import accuracy, confusion_tables, macro_f1
from langchain_pld.models.catalogue import DEFAULT_MODEL
from tests.benchmarks._report import table

FORMS = {"letters": AnswerFormat.letters, "two_stage": AnswerFormat.two_stage}


def read_rows(path: Path, count: int, seed: int) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Rows drawn at random, and all labels of the file."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    labels = tuple(sorted({row["label"] for row in rows}))
    return random.Random(seed).sample(rows, min(count, len(rows))), labels


async def measure(classifier: PLDClassifier, rows: list[dict[str, str]]) -> list[Verdict]:
    """One verdict after the other: the figures are those of one text at a time."""
    return [await classifier.ainvoke(row["text"]) for row in rows]


def figures_of(verdicts: list[Verdict], rows: list[dict[str, str]], labels: tuple[str, ...]) -> dict[str, Any]:
    answers = [verdict.label for verdict in verdicts]
    counts = confusion_tables([row["label"] for row in rows], answers, labels).sum(axis=0)
    return {
        "macro_f1": round(float(macro_f1(counts)), 3),
        "accuracy": round(float(accuracy(counts)), 3),
        "failed": sum(verdict.status == "failed" for verdict in verdicts),
        "calls": round(sum(verdict.usage.calls for verdict in verdicts) / len(verdicts), 2),
        "ms": round(statistics.median(verdict.latency_ms for verdict in verdicts), 1),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder a set")
    parser.add_argument("--set", default="cuad_clause_type")
    parser.add_argument("--instructions", default="Decide which kind of contract clause the text is.")
    parser.add_argument("--model", default=f"embedded:{DEFAULT_MODEL}")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, labels = read_rows(options.data / options.set / "test.jsonl", options.rows, options.seed)
    task = Task(name=options.set, instructions=options.instructions, labels=[{"name": label} for label in labels])
    student = resolve_chat_model(options.model)
    found: dict[str, dict[str, Any]] = {}
    for form, answer_format in FORMS.items():
        classifier = PLDClassifier.zero_shot(task, student, answer=answer_format(task), timeout_s=300)
        await classifier.ainvoke(rows[0]["text"])  # loads the model and fills its prefix cache
        found[form] = figures_of(await measure(classifier, rows), rows, labels)
    columns = list(found["letters"])
    title = f"{len(labels)} labels of {options.set}, {len(rows)} test rows, zero-shot, {options.model}"
    shown = table(title, ("form", *columns), text=("form",))
    for form, figures in found.items():
        shown.add_row(form, *(str(figures[column]) for column in columns))
    Console(width=120).print(shown)
    by_form = {f"{form}_{key}": value for form, figures in found.items() for key, value in figures.items()}
    print(json.dumps({"labels": len(labels), "rows": len(rows), **by_form}))


if __name__ == "__main__":
    asyncio.run(main())
