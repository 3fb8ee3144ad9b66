"""`pld evaluate`: an artifact on labelled rows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from langchain_pld.cli.errors import CHECK_FAILED, stoppable
from langchain_pld.cli.options import (
    ArtifactFile,
    GroupColumn,
    IdColumn,
    Json,
    LabelColumn,
    SkipBadRows,
    StudentModel,
    TextColumn,
    columns,
)
from langchain_pld.cli.printing import complain, output, print_json, print_notes

if TYPE_CHECKING:
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.examples import ExampleSet

__all__ = ["EXAMPLES", "evaluate"]

EXAMPLES = """\b
Examples:
  pld evaluate chat.pld.json --data test.jsonl
  pld evaluate chat.pld.json --data test.jsonl --train train.jsonl
  pld evaluate chat.pld.json --data test.jsonl --min-macro-f1 0.7 --json > scores.json

\b
A text without a readable answer counts as wrong. Without --train, the majority baseline knows the
most frequent label of the rows themselves: no constant answer can do better."""


def evaluate(
    artifact: ArtifactFile,
    data: Path = typer.Option(..., metavar="FILE", help="Labelled rows."),
    train: Path | None = typer.Option(
        None, metavar="FILE", help="Rows that the majority and n-gram baselines may learn from."
    ),
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    group_column: GroupColumn = None,
    student: StudentModel = None,
    min_macro_f1: float | None = typer.Option(
        None, metavar="SCORE", min=0, max=1, help="Exit with code 1 if macro-F1 is lower."
    ),
    seed: int = typer.Option(0, help="Seed of the bootstrap."),
    skip_bad_rows: SkipBadRows = False,
    as_json: Json = False,
) -> None:
    """Score an artifact on labelled rows.

    Macro-F1 and accuracy come with 95 % intervals and stand beside plain baselines.
    """
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.cli.classify import load_classifier
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.tables import score_table
    from langchain_pld.errors import StudentError
    from langchain_pld.evaluation.baselines import majority_card, ngram_card
    from langchain_pld.evaluation.evaluate import evaluate as run
    from langchain_pld.evaluation.evaluate import gold_labels
    from langchain_pld.examples import read_examples

    prompt = DistilledPrompt.load(artifact)
    names = columns(text=text_column, label=label_column, id=id_column, group=group_column)

    def read(file: Path) -> ExampleSet:
        return read_examples(file, prompt.task, columns=names, labelled=True, skip_bad_rows=skip_bad_rows)

    rows = read(data)
    known = None if train is None else read(train)
    sets = [rows] if known is None else [rows, known]
    print_notes(sets)
    for one in sets:
        gold_labels(one)
    role = _role(prompt, rows)
    classifier = load_classifier(artifact, student or prompt.student.spec)
    with stoppable(lambda: "no row is scored"), StepBars() as bars:
        result = run(
            classifier,
            rows,
            name="distilled" if prompt.rules else "zero-shot",
            role=role,
            seed=seed,
            on_progress=bars.counting("student reads the rows"),
        )
    card = result.card
    reasons = [verdict.failure for verdict in result.verdicts if verdict.failure is not None]
    if len(reasons) == len(rows):
        # No score: the model, not the prompt, is what would be measured. That the circuit opened is no reason.
        raise StudentError(min(reasons, key=lambda reason: reason.kind == "circuit_open"))
    constant = majority_card(prompt.task, known or rows, rows, role=role, seed=seed)
    if known is None:
        constant = constant.model_copy(update={"name": "majority (of these rows)"})
    ngram = None if known is None else ngram_card(prompt.task, known, rows, role=role, seed=seed)
    passed = min_macro_f1 is None or card.macro_f1.value >= min_macro_f1
    failures = Counter(reason.kind for reason in reasons)
    if as_json:
        report = {"score": card, "majority": constant} | ({} if ngram is None else {"n_gram": ngram})
        scores = {name: one.model_dump(mode="json") for name, one in report.items()}
        outcome = {"failures": failures, "min_macro_f1": min_macro_f1, "passed": passed}
        print_json({"artifact": prompt.id, "data": str(data), **scores, **outcome})
    else:
        cards = [one for one in (constant, ngram, card) if one is not None]
        output().print(score_table(cards, f"{data.name} rows"))
    if failures:
        kinds = ", ".join(f"{kind} {number}" for kind, number in failures.most_common())
        complain(f"{len(reasons)} of {len(rows)} rows have no verdict and count as wrong ({kinds})")
    if not passed:
        complain(f"macro-F1 {card.macro_f1.value:.3f} is below {min_macro_f1}")
        raise typer.Exit(CHECK_FAILED)


def _role(prompt: DistilledPrompt, rows: ExampleSet) -> str:
    """The data role of the rows; says so where the artifact was made from these very rows."""
    digest = rows.sha256
    for role, known in prompt.data.items():
        if known.sha256 == digest and role != "test":
            complain(f"note: these are the {role} rows that {prompt.id} was made with, so the scores are too good")
            return role
    return "test"
