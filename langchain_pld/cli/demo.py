"""`pld demo`: the main job from end to end, on a real model and our own example data."""

from __future__ import annotations

import shlex
import shutil
import textwrap
import time
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from langchain_pld.cli.errors import stoppable
from langchain_pld.cli.options import check_writable
from langchain_pld.cli.printing import output, printable
from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.plan import Plan
    from langchain_pld.examples import ExampleSet
    from langchain_pld.task import Task

__all__ = ["EXAMPLES", "NEW_TEXTS", "RECORDED", "TASK", "demo", "demo_plan"]

EXAMPLES = """\b
Examples:
  pld demo
  pld demo --student ollama:gemma3:4b --out shop.pld.json
  pld demo --teacher google_genai:gemini-2.5-pro
  pld demo --copy shop_inbox

\b
The default teacher is a recording: a strong writer answered its questions beforehand. The student,
calibration and tests are live. --copy writes task and rows into a folder, to start from."""

RECORDED = "recorded"
"""The teacher whose answers are shipped with the package."""

TASK = "shop_inbox"
"""The example task: who answers the messages to a bicycle shop."""

NEW_TEXTS = (
    "What do I get off if I take both the helmet and the lock?",
    "How do I change the brake cable by myself?",
    "Where on earth is my parcel? It has been on its way for so long that I forgot what is in it.",
)
"""Texts that are in none of the files."""

_ROLES = ("train", "validation", "test")
_WIDTH = 110


def demo(
    out: Path = typer.Option(Path("demo.pld.json"), metavar="FILE", help="The artifact to write."),
    student: str | None = typer.Option(
        None, metavar="MODEL", help="Will decide, as provider:name; the embedded default when absent."
    ),
    teacher: str = typer.Option(
        RECORDED, metavar=f"MODEL|{RECORDED}", help="Writes the rules, as provider:name, or the recorded answers."
    ),
    copy: Path | None = typer.Option(
        None, metavar="DIR", help="Only copy task and rows into this new folder, to start from."
    ),
) -> None:
    """Do the whole job on example data with a real local model.

    A prompt is distilled, tested against the one without rules, and decides new texts.
    No key and no server: the model runs inside this process.
    """
    with as_file(files("langchain_pld") / "example_data" / TASK) as folder:
        if copy is None:
            _run(folder, out, student, teacher)
        else:
            _copy(folder, copy)


def _copy(folder: Path, to: Path) -> None:
    try:
        shutil.copytree(folder, to)
    except FileExistsError as error:
        msg = f"{to} is there already; give a folder that is not"
        raise InputError(msg) from error
    except OSError as error:
        msg = f"cannot copy into {to}: {error.strerror}"
        raise InputError(msg) from error
    given = " ".join(f"--{role} {shlex.quote(str(to / f'{role}.jsonl'))}" for role in _ROLES)
    typer.echo(
        f"Task and rows are in {to}. Replace them with yours, or begin with these; any strong model can teach:\n"
        f"  pld distill {shlex.quote(str(to / 'task.yaml'))} \\\n"
        f"      {given} \\\n"
        "      --teacher google_genai:gemini-2.5-pro --out shop.pld.json"
    )


def _run(folder: Path, out: Path, student: str | None, teacher: str) -> None:
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.distill import distill
    from langchain_pld.examples import read_examples
    from langchain_pld.models.catalogue import DEFAULT_MODEL
    from langchain_pld.task import Task

    check_writable(out)
    task = Task.from_yaml(folder / "task.yaml")
    train, validation, test = (
        read_examples(folder / f"{role}.jsonl", task) for role in ("train", "validation", "test")
    )
    spec = student or f"embedded:{DEFAULT_MODEL}"
    _introduce(
        task,
        {"train": train, "validation": validation, "test": test},
        f"{spec}{_download() if student is None else ''}",
    )
    writer = _teacher(teacher)
    plan = demo_plan()
    _say(
        "Plan",
        f"the teacher explains {plan.train_examples} train rows and merges its notes into at most "
        f"{plan.rules_per_label * len(task.labels)} rules. The student tries them on the validation rows; they stay if "
        "they beat the prompt without rules. Then both prompts meet the test rows, by which nothing was chosen.",
    )
    _say("Time", "about 5 minutes on two idle cores with the defaults, download aside\n")
    typer.echo()
    model = ready_model(spec)
    started = time.monotonic()
    with stoppable(lambda: f"nothing was written to {out}; a fetched model is kept"), StepBars() as bars:
        bars.wait("generate: the model is loaded")
        artifact = distill(
            task,
            train=train,
            validation=validation,
            test=test,
            teacher=writer,
            student=model,
            effort=plan,
            on_progress=bars.distilling,
        )
    artifact.save(out)
    _show(artifact, len(test))
    _decide(out, artifact, model)
    file = shlex.quote(str(out))
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    typer.echo(
        f"All of it took {minutes} min {seconds} s. The artifact {artifact.id} is in {out}: one JSON file with\n"
        f"prompt, rules, calibration and scores. Next:\n"
        f'  pld classify {file} "Can you beat the price of the shop next door?"\n'
        f"  pld demo --copy {TASK}    # task and rows as files, to start from\n"
        f"  pld evaluate {file} --data {TASK}/test.jsonl"
    )


def demo_plan() -> Plan:
    """The plan of the recording: what the teacher is asked depends on data and plan alone, never on the student."""
    from langchain_pld.distillation.plan import PLANS

    asked = {"train_examples": 60, "clustering": "kmeans", "rules_per_label": 4, "contrast_examples": 4, "rounds": 0}
    return PLANS["light"].model_copy(update={**asked, "trials": 0, "ceiling": None})


def _introduce(task: Task, rows: dict[str, ExampleSet], student: str) -> None:
    counts = ", ".join(f"{len(found)} {role}" for role, found in rows.items())
    _say("Task", f"{task.name}. {task.instructions.strip()} The labels are {', '.join(task.label_names)}.")
    _say("", "Who gets which message is this shop's own convention: only the labelled rows show it.")
    _say("Rows", f"{counts}, written for this project")
    _say("Student", student)


def _say(what: str, text: str) -> None:
    """A paragraph with a title at its side."""
    title = f"{what}:" if what else ""
    typer.echo(
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"{title:9}",
            subsequent_indent=" " * 9,
            # A path is copied whole.
            break_long_words=False,
            break_on_hyphens=False,
        )
    )


def _teacher(spec: str) -> BaseChatModel:
    """The teacher, and a line about it."""
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.models.recorded import RecordedChatModel

    if spec != RECORDED:
        _say("Teacher", f"{spec}, live")
        return ready_model(spec)
    recorded = RecordedChatModel(path=Path(TASK))
    _say("Teacher", f"recorded, not live. {recorded.about}")
    return recorded


def _show(artifact: DistilledPrompt, test_rows: int) -> None:
    """What came out: both prompts on the test rows, what is shipped and why, and its rules."""
    from langchain_pld.cli.tables import rules_list, score_tables

    console = output()
    typer.echo(f"\nThe {test_rows} test rows, read once, now that the prompt is chosen:")
    for table in score_tables(card for card in artifact.scores if card.role == "test"):
        console.print(table)
    for note in artifact.notes:
        console.print(f"- {printable(note)}")
    console.print()
    console.print(rules_list(artifact))
    console.print()


def _decide(file: Path, artifact: DistilledPrompt, model: BaseChatModel) -> None:
    """New texts, decided by the written file, each with the rule that decided."""
    from langchain_pld.cli.deciding_rule import deciding_rule
    from langchain_pld.cli.tables import verdict_line
    from langchain_pld.student.classifier import PLDClassifier

    console = output()
    typer.echo("New texts, decided by the written file:\n")
    if artifact.rules:
        typer.echo(
            "A small student cites no rule, so the rules for its label were taken out one at a time until the\n"
            "decision changed. Where it never did, the one that cost the label most is shown.\n"
        )
    classifier = PLDClassifier.from_artifact(file, student=model)
    for text in NEW_TEXTS:
        verdict = classifier.invoke(text)
        console.print(f"{printable(text)}\n  {verdict_line(verdict)}")
        found = deciding_rule(artifact, model, text, verdict)
        if found is None and artifact.rules:
            console.print("  no single rule: the label loses nothing without any one of them")
        elif found is not None:
            console.print(
                f"  {printable(found.rule.condition)}\n  ({found.rule.id}; without it {verdict_line(found.without)})"
            )
        console.print()


def _download() -> str:
    """What has to be downloaded for the embedded default."""
    from langchain_pld.models.catalogue import DEFAULT_MODEL, catalogue_entry
    from langchain_pld.models.fetch import cache_dir, cached_model

    entry = catalogue_entry(DEFAULT_MODEL)
    if cached_model(entry) is not None:
        return f", in the cache ({cache_dir()})"
    return f"; {entry.size / 1e9:.1f} GB are downloaded once, into {cache_dir()}"
