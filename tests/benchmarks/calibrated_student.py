"""How good and how well calibrated the student is: `python -m tests.benchmarks.calibrated_student --help`.

For each set below FOLDER: macro-F1, expected calibration error and coverage at 5 % and 10 % risk on held-out rows, raw
and calibrated, of the zero-shot prompt with label names as answers. The calibration is fitted on validation rows, the
figures are from test rows. "If right" is the error that exactly right probabilities would show on as many rows: its
mean and 95th percentile. FILE is YAML: set to instructions and labels. The data are public benchmarks of third parties
and no part of the project.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from langgraph.store.memory import InMemoryStore
from rich.console import Console

from langchain_pld import Task, read_examples
from langchain_pld.distillation.config import DistillConfig
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.answer_formats import student_formats
from langchain_pld.distillation.search.candidates import Candidate
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.models.catalogue import DEFAULT_MODEL
from langchain_pld.models.embedded import EmbeddedChatModel
from langchain_pld.student.calibration_metrics import expected_calibration_error
from tests.benchmarks._report import progress_line, table
from tests.benchmarks._rows import draw

SETS = ("stereoset_bias_type", "hatecheck", "moderation_openai")
RISKS = (0.05, 0.1)


async def measure(
    name: str, definition: dict[str, Any], folder: Path, model: EmbeddedChatModel, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of the table for one set."""
    labels = [{"name": label, "description": text} for label, text in definition["labels"].items()]
    task = Task(name=name, instructions=definition["instructions"], labels=labels)
    validation, test = (
        draw(read_examples(folder / name / f"{role}.jsonl", task), options.rows, options.seed)
        for role in ("validation", "test")
    )
    store, config = RunStore(InMemoryStore(), name), DistillConfig(seed=options.seed)
    run = await Run.open("benchmark", task=task, plan=PLANS["light"], store=store, student=model, config=config)
    scorer = StudentScorer(run, await run.student_fingerprint(), "logprobs")
    (answer,) = await student_formats(run, ("names",))
    scored = await scorer.validate(Candidate(answer=answer), validation, progress_line(f"{name}, validation"))
    scores = await scorer.score(scored.candidate, test, "test", progress_line(f"{name}, test"))
    rows = []
    for card in scorer.cards(scored, test, name="zero-shot", role="test", scores=scores):
        probabilities = scored.calibrate(scores) if card.calibrated else [score.probabilities for score in scores]
        rows.append(
            {
                "set": name,
                "scores": "calibrated" if card.calibrated else "raw",
                "method": scored.calibration.method if card.calibrated else "none",
                "validation_rows": len(validation),
                "test_rows": len(test),
                "macro_f1": card.macro_f1.value,
                "macro_f1_interval": [card.macro_f1.low, card.macro_f1.high],
                "ece": card.ece,
                "ece_if_right": consistent_error(np.array([list(p.values()) for p in probabilities if p])),
                "failed": card.failed,
            }
            | {f"coverage_at_{risk:.0%}_risk": coverage(probabilities, gold_labels(test), risk) for risk in RISKS}
        )
    return rows


def coverage(probabilities: Sequence[dict[str, float] | None], gold: Sequence[str], risk: float) -> float:
    """The largest share of rows, most confident first, whose error rate is at most `risk` (El-Yaniv & Wiener 2010).

    A description of these very rows; rows with the same confidence are decided together, a failed one never.
    """
    rows = [
        (max(p.values()), max(p, key=p.__getitem__) != label) for p, label in zip(probabilities, gold, strict=True) if p
    ]
    rows.sort(reverse=True)
    errors = np.cumsum([wrong for _, wrong in rows])
    last_of_ties = [n for n in range(len(rows)) if n + 1 == len(rows) or rows[n + 1][0] < rows[n][0]]
    return max((n + 1 for n in last_of_ties if errors[n] <= risk * (n + 1) + 1e-9), default=0) / len(gold)


def consistent_error(probabilities: np.ndarray, *, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean and 95th percentile of the calibration error that exactly right probabilities, n x k, would show.

    On few rows it is far from 0, since a bin's accuracy is that of a handful of rows. Labels are drawn from the
    probabilities themselves (consistency resampling, Broecker and Smith 2007).
    """
    rng = np.random.default_rng(seed)
    totals = probabilities.cumsum(axis=1)
    totals[:, -1] = 1.0
    errors = [
        expected_calibration_error(probabilities, (rng.random((len(totals), 1)) > totals).sum(axis=1))
        for _ in range(draws)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with one folder a set")
    parser.add_argument("--definitions", type=Path, required=True, help="YAML: set to instructions, labels")
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

    shown = table(
        f"{DEFAULT_MODEL}, test rows, calibrated on validation rows; ECE over 10 bins of equal size",
        ("set", "scores", "rows", "macro-F1", "ECE", "if right", "cov. 5 %", "cov. 10 %", "failed"),
        text=("set", "scores"),
    )
    for row in rows:
        low, high = row["macro_f1_interval"]
        shown.add_row(
            row["set"],
            row["scores"] if row["scores"] == "raw" else f"{row['scores']} ({row['method']})",
            f"{row['validation_rows']}/{row['test_rows']}",
            f"{row['macro_f1']:.3f} [{low:.3f}, {high:.3f}]",
            f"{row['ece']:.3f}",
            f"{row['ece_if_right'][0]:.3f}, {row['ece_if_right'][1]:.3f}",
            f"{row['coverage_at_5%_risk']:.2f}",
            f"{row['coverage_at_10%_risk']:.2f}",
            str(row["failed"]),
        )
    Console(width=140).print(shown)
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    asyncio.run(main())
