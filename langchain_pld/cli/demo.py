"""`pld demo`: the main job from end to end, on real models and our own example data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from langchain_pld.cli.errors import stoppable
from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_pld.distillation.plan import Plan
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "NEW_TEXTS", "RECORDED", "demo", "recorded_plan"]

EXAMPLES = """\b
Examples:
  pld demo
  pld demo --task nda_review --out nda.pld.json
  pld demo --teacher recorded
  pld demo --model ollama:gemma3:4b

\b
It runs inside a clone of the repository, where the example data lies. The recorded teacher's answers
were not made live: a strong writer wrote them, through the offline teacher. All else is as ever."""

RECORDED = "recorded"
"""The teacher whose answers are shipped with the package."""

NEW_TEXTS: dict[str, tuple[str | dict[str, str], ...]] = {
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
"""Texts a task that are in none of its files."""

_MINUTES = "about 5 minutes on two idle cores"


def demo(
    task: str = typer.Option("workplace_chat", metavar="|".join(NEW_TEXTS), help="Which example data."),
    out: Path = typer.Option(Path("demo.pld.json"), metavar="FILE", help="The artifact to write."),
    model: str | None = typer.Option(
        None, metavar="MODEL", help="Teacher and student, as provider:name; the embedded default when absent."
    ),
    teacher: str | None = typer.Option(
        None, metavar=f"MODEL|{RECORDED}", help="Another teacher than the student; the recorded one needs no model."
    ),
) -> None:
    """Do the whole job on example data with a real local model.

    It is teacher and student: a prompt is distilled and tested, then classifies new texts.
    No key and no server: the model runs inside this process.
    """
    from langchain_pld.cli.distill import check_writable, show_scores
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.cli.tables import output, rules_list, verdict_lines
    from langchain_pld.distillation.distill import distill
    from langchain_pld.examples import read_examples
    from langchain_pld.models.catalogue import DEFAULT_MODEL
    from langchain_pld.student.classifier import PLDClassifier
    from langchain_pld.task import Task

    if task not in NEW_TEXTS:
        msg = f"the demo knows the tasks {', '.join(NEW_TEXTS)}, not {task!r}"
        raise typer.BadParameter(msg, param_hint="--task")
    check_writable(out)
    folder = _examples_folder(task)
    definition = Task.from_yaml(folder / f"{task}.yaml")
    train, validation, test = (
        read_examples(folder / "data" / task / f"{role}.jsonl", definition) for role in ("train", "validation", "test")
    )
    spec = model or f"embedded:{DEFAULT_MODEL}"
    plan = recorded_plan() if teacher == RECORDED else _plan()
    console = output()
    typer.echo(f"Task:  {task}, {len(train)} train, {len(validation)} validation and {len(test)} test rows")
    typer.echo(
        f"Model: {spec}, as {'student' if teacher else 'teacher and student'}{_download() if model is None else ''}"
    )
    writer = _teacher(teacher, task) if teacher else None
    typer.echo(f"Plan:  {plan.describe()}")
    typer.echo(f"Time:  {_MINUTES} with the embedded default, download aside\n")

    chat_model = ready_model(spec)
    started = time.monotonic()
    with stoppable(lambda: f"nothing was written to {out}; a fetched model is kept"), StepBars() as bars:
        bars.wait(f"generate: {'the teacher' if writer else 'the model is loaded and'} reads the first examples")
        artifact = distill(
            definition,
            train=train,
            validation=validation,
            test=test,
            teacher=writer or chat_model,
            student=chat_model,
            effort=plan,
            on_progress=bars.distilling,
        )
    artifact.save(out)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    typer.echo(f"\nDistilled in {minutes} min {seconds} s.\n")
    # People compare on the held-out rows; the artifact keeps the validation scores too.
    show_scores(artifact.model_copy(update={"scores": tuple(c for c in artifact.scores if c.role == "test")}))
    console.print(rules_list(artifact))

    typer.echo("\nNew texts, classified by PLDClassifier from the written file:\n")
    classifier = PLDClassifier.from_artifact(out, student=chat_model)
    for value in NEW_TEXTS[task]:
        console.print(verdict_lines(definition.render(value), classifier.invoke(value), artifact))
    typer.echo(f"\nArtifact {artifact.id} is in {out}. Next: {_next(out, definition)}")


def _plan() -> Plan:
    """The light plan, cut down to minutes on two cores; rules are tried in any case, since they are what it shows."""
    from langchain_pld.distillation.plan import PLANS

    cut = {"train_examples": 12, "rules_per_label": 1, "trials": 1, "rounds": 0, "contrast_examples": 4}
    return PLANS["light"].model_copy(update={**cut, "ceiling": None})


def recorded_plan() -> Plan:
    """The plan of the recordings: what the teacher is asked depends on data and plan alone, never on the student."""
    from langchain_pld.distillation.plan import PLANS

    asked = {"train_examples": 60, "clustering": "kmeans", "rules_per_label": 3, "contrast_examples": 4, "rounds": 0}
    return PLANS["light"].model_copy(update={**asked, "trials": 4, "ceiling": None})


def _teacher(spec: str, task: str) -> BaseChatModel:
    """A teacher of its own, and a line about it."""
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.models.recorded import RecordedChatModel

    if spec != RECORDED:
        typer.echo(f"Teacher: {spec}")
        return ready_model(spec)
    recorded = RecordedChatModel(file=Path(task))
    typer.echo(f"Teacher: recorded, not live. {recorded.about}")
    return recorded


def _download() -> str:
    """What has to be downloaded for the embedded default."""
    from langchain_pld.models.catalogue import DEFAULT_MODEL, catalogue_entry
    from langchain_pld.models.fetch import cache_dir, cached_model

    entry = catalogue_entry(DEFAULT_MODEL)
    if cached_model(entry) is not None:
        return f"; it is in the cache ({cache_dir()})"
    return f"; {entry.size / 1e9:.1f} GB are downloaded once, into {cache_dir()}"


def _next(out: Path, definition: Task) -> str:
    what = " ".join(f'--field {name}="…"' for name in definition.fields) or '"your text"'
    return f"pld classify {out} {what}"


def _examples_folder(task: str) -> Path:
    """The `examples` folder of the current directory or of the repository that the package is installed from."""
    roots = dict.fromkeys((Path.cwd(), Path(__file__).parents[2]))
    for root in roots:
        if (root / "examples" / "data" / task).is_dir():
            return root / "examples"
    where = " or ".join(map(str, roots))
    msg = f"no folder examples/data/{task} under {where}; run the demo in a clone of the repository"
    raise InputError(msg)
