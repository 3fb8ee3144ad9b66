"""`pld demo`: the main job from end to end, on real models and our own example data."""

from __future__ import annotations

from pathlib import Path

import typer

from langchain_pld.errors import InputError

__all__ = ["demo"]

_NEW_TEXTS: dict[str, tuple[str | dict[str, str], ...]] = {
    "workplace_chat": (
        "Our client Harrow & Finch just agreed to pay 12,500 for the spring campaign.",
        "Could somebody please finish the slides on Saturday night?",
        "The new coffee machine is wonderful, thanks to whoever ordered it!",
    ),
    "nda_review": (
        {
            "premise": "The Recipient may keep one copy of the Confidential Information in its legal archive.",
            "hypothesis": "The Recipient may retain some Confidential Information.",
        },
        {
            "premise": "Neither party may assign this Agreement without the prior written consent of the other.",
            "hypothesis": "A party may assign the Agreement.",
        },
        {
            "premise": "The Recipient shall protect the Confidential Information with reasonable care.",
            "hypothesis": "The duty of confidence lasts three years.",
        },
    ),
}
_MINUTES = "an estimated 5 minutes on two idle cores"
_EXPLAINED = 16


def demo(
    task: str = typer.Option("workplace_chat", help="workplace_chat or nda_review."),
    out: Path = typer.Option(Path("demo.pld.json"), help="The artifact to write."),
) -> None:
    """Distil a prompt with a real local model as teacher and student, then classify with it.

    No key and no server: the model runs inside this process.
    """
    from rich.console import Console

    from langchain_pld.cli.progress import fetching, run_bars
    from langchain_pld.cli.tables import rules_table, score_table
    from langchain_pld.distillation.distill import distill
    from langchain_pld.distillation.plan import PLANS
    from langchain_pld.examples import read_examples
    from langchain_pld.models.catalogue import DEFAULT_MODEL, catalogue_entry
    from langchain_pld.models.fetch import cached_model, fetch_model
    from langchain_pld.models.resolve import resolve_chat_model
    from langchain_pld.student.classifier import PLDClassifier
    from langchain_pld.task import Task

    if task not in _NEW_TEXTS:
        msg = f"the demo knows the tasks {', '.join(_NEW_TEXTS)}, not {task!r}"
        raise typer.BadParameter(msg)
    folder = _examples_folder()
    console = Console()
    entry = catalogue_entry(DEFAULT_MODEL)
    cached = cached_model(entry) is not None
    source = "already in the cache" if cached else f"{entry.size / 1e9:.1f} GB are downloaded once"
    console.print(f"Model: {entry.description} ({source}). Then {_MINUTES}.", highlight=False)
    if not cached:
        with fetching(entry.name) as show_fetch:
            fetch_model(entry, progress=show_fetch)

    definition = Task.from_yaml(folder / f"{task}.yaml")
    train, validation, test = (
        read_examples(folder / "data" / task / f"{role}.jsonl", definition) for role in ("train", "validation", "test")
    )
    model = resolve_chat_model(f"embedded:{DEFAULT_MODEL}")
    plan = PLANS["light"].model_copy(
        update={"train_examples": _EXPLAINED, "rules_per_label": 1, "eliminations": 1, "contrast_examples": 4}
    )
    console.print(f"Plan: {plan.describe()}; {len(validation)} validation and {len(test)} test rows.", highlight=False)
    with run_bars() as show:
        artifact = distill(
            definition,
            train=train,
            validation=validation,
            test=test,
            teacher=model,
            student=model,
            effort=plan,
            on_progress=show,
        )
    artifact.save(out)
    cards = [card for card in artifact.scores if card.role == "test"]
    title = f"{task}: {len(test)} held-out test rows, teacher and student {entry.name}, 95 % intervals"
    console.print(score_table(cards, title))
    for note in artifact.notes:
        console.print(f"Note: {note}.", highlight=False)
    console.print(rules_table(artifact))

    classifier = PLDClassifier.from_artifact(out)
    console.print("\nNew texts, classified with the written artifact:", highlight=False)
    for value in _NEW_TEXTS[task]:
        verdict = classifier.invoke(value)
        shown = value if isinstance(value, str) else " / ".join(value.values())
        console.print(f"\n  {shown}", highlight=False, markup=False)
        chances = ", ".join(f"{label} {p:.2f}" for label, p in (verdict.probabilities or {}).items())
        console.print(f"  -> {verdict.label or verdict.failure}  ({chances})", highlight=False, markup=False)
        for rule in artifact.rules_for(verdict.label or ""):
            console.print(f"     rule for {rule.label}: {rule.condition}", highlight=False, markup=False)
    console.print(f'\nArtifact {artifact.id} is in {out}. Next: pld classify {out} "your text"', highlight=False)


def _examples_folder() -> Path:
    """The `examples` folder of the current directory or of the repository that the package is installed from."""
    for root in (Path.cwd(), Path(__file__).parents[2]):
        if (root / "examples" / "data").is_dir():
            return root / "examples"
    msg = "the demo needs the examples/ folder of the repository: clone it and run there"
    raise InputError(msg)
