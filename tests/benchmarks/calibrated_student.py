"""How good and how honest the student is: `python -m tests.benchmarks.calibrated_student --help`.

For each set below FOLDER: macro-F1, expected calibration error and coverage at 5 % and 10 % risk on held-out rows, raw
and calibrated, of the zero-shot prompt with label names as answers. The calibration is fitted on validation rows, the
figures are from test rows. "If right" is the error that exactly right probabilities would show on as many rows: its
mean and 95th percentile. FILE is YAML: set to instructions, labels and rules; with `--rules` a prompt with these rules
is measured too. The data are public benchmarks of third parties and no part of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from langgraph.store.memory import InMemoryStore
from rich.console import Console
from rich.table import Table

from langchain_pld import Task, read_examples
from langchain_pld.distillation.run.spending import Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.answer_formats import answer_formats
from langchain_pld.distillation.search.candidates import Candidate, RowScore
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.evaluation.coverage import coverage_at_risk
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.examples import ExampleSet
from langchain_pld.models import DEFAULT_MODEL, EmbeddedChatModel
from langchain_pld.rules import Rule
from langchain_pld.student.calibration_metrics import consistent_error
from langchain_pld.student.providers import fingerprint_of, tokenizer_of

SETS = ("stereoset_bias_type", "hatecheck", "moderation_openai")
RISKS = (0.05, 0.1)


def sampled(rows: ExampleSet, count: int, seed: int) -> ExampleSet:
    """At most `count` rows, drawn at random."""
    chosen = random.Random(seed).sample(list(rows), min(count, len(rows)))
    return ExampleSet(source=rows.source, examples=tuple(chosen))


def counted(step: str) -> Any:
    """A progress line on standard error."""
    return lambda done, total: print(f"\r{step}: {done}/{total}   ", end="", file=sys.stderr, flush=True)


async def measure(
    name: str, definition: dict[str, Any], folder: Path, model: EmbeddedChatModel, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of the table for one set."""
    labels = [{"name": label, "description": text} for label, text in definition["labels"].items()]
    task = Task(name=name, instructions=definition["instructions"], labels=labels)
    validation, test = (
        sampled(read_examples(folder / name / f"{role}.jsonl", task), options.rows, options.seed)
        for role in ("validation", "test")
    )
    (answer,) = await asyncio.to_thread(answer_formats, task, ("names",), token_ids=tokenizer_of(model))
    bench = StudentScorer(
        task,
        model,
        fingerprint_of(model),
        "logprobs",
        RunStore(InMemoryStore(), name),
        Spending(),
        node="benchmark",
        seed=options.seed,
    )
    candidates = {"zero-shot": Candidate(answer=answer)}
    if options.rules:
        # These rules name their label themselves; the one they are filed under is only the arrow at their end.
        rules = tuple(Rule.merged(_mentioned(text, task), text, ()) for text in definition["rules"])
        candidates["rules"] = Candidate(rules=rules, answer=answer)
    rows = []
    for prompt, candidate in candidates.items():
        scored = await bench.validate(candidate, validation, counted(f"{name}, {prompt}, validation"))
        held_out = await bench.score(candidate, test, "test", counted(f"{name}, {prompt}, test"))
        cards = bench.cards_of(scored, held_out, test, name=prompt, role="test")
        for card in cards:
            probabilities = [
                _probabilities(score, scored.calibration if card.calibrated else None) for score in held_out
            ]
            rows.append(
                {
                    "set": name,
                    "prompt": prompt,
                    "scores": "calibrated" if card.calibrated else "raw",
                    "method": scored.calibration.method if card.calibrated else "-",
                    "validation_rows": len(validation),
                    "test_rows": len(test),
                    "macro_f1": card.macro_f1.value,
                    "macro_f1_interval": [card.macro_f1.low, card.macro_f1.high],
                    "ece": card.ece,
                    "ece_if_right": consistent_error(np.array([list(p.values()) for p in probabilities if p])),
                    "failed": card.failed,
                }
                | {
                    f"coverage_at_{risk:.0%}_risk": coverage_at_risk(probabilities, gold_labels(test), risk)
                    for risk in RISKS
                }
            )
    return rows


def _mentioned(text: str, task: Task) -> str:
    """The label that a rule names last."""
    return max(task.label_names, key=lambda label: text.rfind(label))


def _probabilities(score: RowScore, calibration: Any) -> dict[str, float] | None:
    if score.log_probabilities is None:
        return None
    if calibration is not None:
        return dict(calibration.apply(score.log_probabilities))
    return {label: float(np.exp(value)) for label, value in score.log_probabilities.items()}


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder a set")
    parser.add_argument("--definitions", type=Path, required=True, help="YAML: set to instructions, labels, rules")
    parser.add_argument("--rules", action="store_true", help="measure the prompt with the definitions' rules too")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--rows", type=int, default=300, help="rows of each role at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    definitions = yaml.safe_load(options.definitions.read_text(encoding="utf-8"))
    model = EmbeddedChatModel(model=DEFAULT_MODEL)
    rows: list[dict[str, Any]] = []
    for name in options.sets:
        rows += await measure(name, definitions[name], options.data, model, options)
    print(file=sys.stderr)

    table = Table(title=f"{DEFAULT_MODEL}, test rows, calibrated on validation rows; ECE over 10 bins of equal size")
    for column in ("set", "prompt", "scores", "rows", "macro-F1", "ECE", "if right", "cov. 5 %", "cov. 10 %", "failed"):
        table.add_column(column, justify="left" if column in {"set", "prompt", "scores"} else "right")
    for row in rows:
        low, high = row["macro_f1_interval"]
        table.add_row(
            row["set"],
            row["prompt"],
            row["scores"] if row["method"] == "-" else f"{row['scores']} ({row['method']})",
            f"{row['validation_rows']}/{row['test_rows']}",
            f"{row['macro_f1']:.3f} [{low:.3f}, {high:.3f}]",
            f"{row['ece']:.3f}",
            f"{row['ece_if_right'][0]:.3f}, {row['ece_if_right'][1]:.3f}",
            f"{row['coverage_at_5%_risk']:.2f}",
            f"{row['coverage_at_10%_risk']:.2f}",
            str(row["failed"]),
        )
    Console(width=140).print(table)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    asyncio.run(main())
