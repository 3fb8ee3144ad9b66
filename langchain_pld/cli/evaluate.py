"""`pld evaluate`: an artifact on labelled rows."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["evaluate"]


def evaluate(
    artifact: Path = typer.Argument(help="A *.pld.json file."),
    data: Path = typer.Option(..., help="Labelled rows (.jsonl or .csv)."),
    student: str | None = typer.Option(None, help="provider:name; the artifact's own student when absent."),
    min_macro_f1: float | None = typer.Option(None, help="Exit 1 when macro-F1 is below this."),
    seed: int = typer.Option(0, help="Seed of the bootstrap."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object on standard output."),
) -> None:
    """Score an artifact on labelled rows: macro-F1 and accuracy with 95 % intervals, beside the majority baseline.

    Example: `pld evaluate chat.pld.json --data test.jsonl --min-macro-f1 0.7`
    """
    import json

    from langchain_pld.cli.errors import CHECK_FAILED
    from langchain_pld.cli.progress import counting
    from langchain_pld.cli.tables import score_table
    from langchain_pld.evaluation.baselines import majority_card
    from langchain_pld.evaluation.evaluate import evaluate as run
    from langchain_pld.examples import read_examples
    from langchain_pld.student.classifier import PLDClassifier

    classifier = PLDClassifier.from_artifact(artifact, student=student)
    rows = read_examples(data, classifier.artifact.task)
    with counting("student reads the rows") as show:
        card = run(classifier, rows, name=classifier.artifact.id, role=data.stem, seed=seed, on_progress=show).card
    # Of the rows themselves: the most that a constant answer can reach on them.
    constant = majority_card(classifier.artifact.task, rows, rows, role=data.stem, seed=seed)
    if as_json:
        typer.echo(json.dumps({"score": card.model_dump(), "majority": constant.model_dump()}))
    else:
        from rich.console import Console

        Console().print(score_table([constant, card], f"{data.name}: {card.rows} rows, student {card.student}"))
    if min_macro_f1 is not None and card.macro_f1.value < min_macro_f1:
        typer.echo(f"pld: macro-F1 {card.macro_f1.value:.3f} is below {min_macro_f1}", err=True)
        raise typer.Exit(CHECK_FAILED)
