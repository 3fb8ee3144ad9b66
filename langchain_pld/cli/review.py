"""`pld review`: a person decides which rules may stand in the prompt of an artifact or of a waiting run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from langchain_pld.cli.errors import stoppable
from langchain_pld.cli.options import IdColumn, Json, LabelColumn, TextColumn, check_writable, columns
from langchain_pld.cli.printing import complain, count, print_json, printable
from langchain_pld.errors import ExampleError, InputError

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig
    from rich.console import Console

    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.run.progress import Progress
    from langchain_pld.examples import Columns, ExampleSet

Ask = Callable[[dict[str, Any]], Any]
"""From a request of the review to the answer."""

__all__ = ["EXAMPLES", "ask_in_terminal", "review"]

EXAMPLES = """\b
Examples:
  pld review chat.pld.json --train train.jsonl
  pld review chat.pld.json --validation validation.jsonl --out reviewed.pld.json
  pld review chat.pld.json --accept-all --reviewer "Ilka Ferrand"
  pld review chat.pld.json --decisions decisions.json --json
  pld review .pld/runs/chat-20261124-0900-1f3c

\b
A file of decisions holds a JSON object, with rules by id:
  {"reviewer": "Ilka Ferrand", "decisions": {
    "r-1a2b3c4d": {"type": "approve"},
    "r-5e6f7a8b": {"type": "edit", "edited_action": {"args": {"condition": "If …"}}},
    "r-9c0d1e2f": {"type": "reject", "message": "too broad"}}}

\b
An edited or rejected rule makes another prompt. With --validation it is scored again; without, its
scores, calibration and gate are dropped, and the artifact says so. A rule with a comment only stays
out of the prompt until somebody accepts it. The signature shows that nothing was changed since; it
does not prove who signed."""


def review(
    target: Path = typer.Argument(
        metavar="ARTIFACT|RUN",
        help="A *.pld.json file, even if its rules were changed by hand; or the folder of a run that waits for review.",
    ),
    reviewer: str | None = typer.Option(
        None, metavar="NAME", envvar="PLD_REVIEWER", help="Who decides.", show_default="the command asks"
    ),
    accept_all: bool = typer.Option(False, "--accept-all", help="Approve every rule without asking."),
    decisions: Path | None = typer.Option(None, metavar="FILE", help="Decisions as JSON, instead of asking."),
    train: Path | None = typer.Option(None, metavar="FILE", help="The training rows, to show the texts behind rules."),
    validation: Path | None = typer.Option(
        None, metavar="FILE", help="Rows to score a changed prompt on; 50 or more, to calibrate it."
    ),
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    id_column: IdColumn = None,
    student: str | None = typer.Option(
        None,
        metavar="MODEL",
        help="As provider:name; in a run of several students, whose rules.",
        show_default="the artifact's own student",
    ),
    out: Path | None = typer.Option(None, metavar="FILE", help="Where to write.", show_default="the same file"),
    seed: int = typer.Option(0, help="Seed of folds and bootstraps."),
    database: str | None = typer.Option(None, metavar="URL", help="The Postgres database of a run that has one."),
    as_json: Json = False,
) -> None:
    """Accept, edit or reject the rules of an artifact.

    What is accepted is signed. A run that waits for its review then goes on to its end.
    """
    from langchain_pld.cli.tables import print_scores

    if accept_all and decisions is not None:
        raise InputError("give --accept-all or --decisions, not both")
    if accept_all and reviewer is None:
        raise InputError("--reviewer is needed with --accept-all: nobody is asked")
    ask = ask_in_terminal(reviewer)
    if accept_all:
        ask = _scripted({"decisions": {"type": "approve"}}, reviewer)
    elif decisions is not None:
        ask = _scripted(_read_json(decisions), reviewer)
    if target.is_dir():
        if train or validation:
            raise InputError("--train and --validation belong to a file; a run has all that from its start")
        signed, out = _review_run(target, ask, out, student=student, database=database)
    else:
        out = out or target
        check_writable(out)
        names = columns(text=text_column, label=label_column, id=id_column)
        done = _review_file(target, ask, names, train=train, validation=validation, student=student, seed=seed)
        if done is None:
            return
        signed = done
    signed.save(out)
    if as_json:
        print_json(_summary(signed, out))
        return
    assert signed.review is not None, "a review ends with a signature"
    typer.echo(f"{signed.review.summary()}, {signed.review.time}\n")
    print_scores(signed)
    typer.echo(f"Signed: {signed.id} in {out}, {count(len(signed.rules), 'rule')}")


def ask_in_terminal(reviewer: str | None, *, console: Console | None = None) -> Ask:
    """A function that asks a person about each rule of a request, on standard error, and gives the answer to it.

    Args:
        reviewer: Who decides; asked for when absent.
        console: Where to ask.
    """
    from rich.console import Console
    from rich.prompt import Prompt

    screen = console or Console(stderr=True, highlight=False, markup=False)
    name = reviewer

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        nonlocal name
        asked = request["action_requests"]
        decisions: dict[str, dict[str, Any]] = {}
        try:
            name = name or Prompt.ask("Your name", console=screen)
            for number, one in enumerate(asked, 1):
                _show(one, f"{number} of {len(asked)}", screen)
                decisions[one["args"]["rule"]] = decision = _decision(one["args"], screen)
                if decision["type"] == "all":
                    decisions |= {later["args"]["rule"]: {"type": "approve"} for later in asked[number - 1 :]}
                    break
        except EOFError:
            screen.print()
            raise KeyboardInterrupt from None  # the input has ended: nobody is there to decide
        return {"reviewer": name, "decisions": decisions}

    return ask


def _scripted(answer: Any, reviewer: str | None) -> Ask:
    """A function that gives an answer prepared beforehand, once."""
    if isinstance(answer, dict) and reviewer is not None:
        answer = {"reviewer": reviewer, **answer}
    answers = iter([answer])

    def ask(request: dict[str, Any]) -> Any:
        for one in answers:
            return one
        problems: dict[str, list[str]] = {}
        for action in request["action_requests"]:
            problems.setdefault(action["description"].splitlines()[0], []).append(action["args"]["rule"])
        raise InputError("; ".join(f"{problem} ({', '.join(rules)})" for problem, rules in problems.items()))

    return ask


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} does not hold decisions as JSON: {error}") from error


def _review_file(
    file: Path,
    ask: Ask,
    names: Columns,
    *,
    train: Path | None,
    validation: Path | None,
    student: str | None,
    seed: int,
) -> DistilledPrompt | None:
    """The signed artifact; `None` where there is nothing to review."""
    from langchain_pld.artifact import DistilledPrompt
    from langchain_pld.distillation.nodes.review import ReviewForm
    from langchain_pld.distillation.search.rescoring import UNMEASURED, with_rules
    from langchain_pld.examples import read_examples

    artifact, whole = DistilledPrompt.load_for_review(file)
    waiting = artifact.review.undecided if artifact.review is not None else ()
    rules = (*artifact.rules, *(rule for rule in waiting if rule not in artifact.rules))
    if not rules:
        DistilledPrompt.load(file)  # what was changed by hand, and has no rules to look at, is refused
        complain(f"{artifact.id} has no rules: there is nothing to review")
        return None
    if not whole:
        complain(
            f"{file} was changed by hand since it was scored: nothing that was measured is kept, and its prompt is "
            f"written anew. With all rules it reads:\n\n{with_rules(artifact, rules, trusted=False).system_prompt}\n"
        )
    rows = None if validation is None else _validation_rows(artifact, validation, names)
    form = ReviewForm(artifact.task, rules, () if train is None else read_examples(train, artifact.task, columns=names))
    with stoppable(lambda: "nothing was written"):
        while form.open:
            form.take(ask(form.request()))
    answer = form.answer()
    reviewed = with_rules(artifact, answer.accepted, trusted=whole)
    if rows is not None and UNMEASURED in reviewed.notes:
        reviewed = _scored_again(reviewed, rows, student or artifact.student.spec, seed)
    elif rows is not None:
        complain("the prompt is the same as before: its scores stand, and it is not scored again")
    return reviewed.sign(answer)


def _review_run(
    folder: Path, ask: Ask, out: Path | None, *, student: str | None, database: str | None
) -> tuple[DistilledPrompt, Path]:
    """The artifact that a waiting run ends with after its review, and where it goes."""
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.config import DistillConfig
    from langchain_pld.distillation.distill import run_of_student
    from langchain_pld.distillation.graph import build_distillation_graph
    from langchain_pld.distillation.nodes.review import aresume_review
    from langchain_pld.distillation.run_directory import RunDirectory
    from langchain_pld.student.providers import model_spec

    directory = RunDirectory(folder)
    record = directory.record()
    directory.check_files(record)
    student = student or (record.students[0] if len(record.students) == 1 else None)
    if student not in record.students:
        raise InputError(f"--student: say whose rules; the students of this run are {', '.join(record.students)}")
    out = out or record.artifact_of(student)
    check_writable(out)
    teacher = ready_model(record.teacher)
    decider = teacher if student == record.teacher else ready_model(student)
    run_id = run_of_student(record.run_id, model_spec(decider))

    async def resume(on_progress: Callable[[Progress], None]) -> DistilledPrompt:
        async with directory.open(postgres=database) as (store, checkpointer):
            graph = build_distillation_graph(teacher=teacher, student=decider, store=store, checkpointer=checkpointer)
            config: RunnableConfig = {"configurable": {"thread_id": run_id}}
            context = DistillConfig(seed=record.seed)
            return await aresume_review(graph, config, ask, context=context, on_progress=on_progress)

    with directory.lock(), stoppable(lambda: "the run still waits, or goes on with pld distill --resume"):
        bars: StepBars | None = None

        def progress(news: Progress) -> None:
            nonlocal bars
            # Not before the answers: a bar and a question do not share a line.
            bars = bars or stack.enter_context(StepBars())
            bars.distilling(news)

        with ExitStack() as stack:
            return asyncio.run(resume(progress)), out


def _show(request: dict[str, Any], place: str, screen: Console) -> None:
    from rich.padding import Padding
    from rich.text import Text

    from langchain_pld.distillation.nodes.review import PROBLEM

    rule = request["args"]
    effect = "" if rule["effect"] is None else f", measured effect {rule['effect']:+.3f}"
    title = f"Rule {place}: {rule['rule']} for {rule['label']}, from {count(rule['support'], 'example')}{effect}"
    lines = [f"cues: {', '.join(rule['cues'])}"] if rule["cues"] else []
    lines += [f"cues against: {', '.join(rule['counter_cues'])}"] if rule["counter_cues"] else []
    lines += [f"{example}: {text}" for example, text in rule["texts"].items()]
    lines += [
        f"! {other['rule']} says nearly the same for {other['label']}: {other['condition']}"
        for other in rule["conflicts"]
    ]
    first = request["description"].splitlines()[0]
    lines += [f"! {first}"] if first.startswith(PROBLEM) else []
    screen.print()
    screen.print(Text(title, style="bold"))
    for indent, line in [(2, rule["condition"]), *((4, line) for line in lines)]:
        screen.print(Padding(Text(printable(line)), (0, 0, 0, indent), expand=False))


def _decision(arguments: dict[str, Any], screen: Console) -> dict[str, Any]:
    from rich.prompt import Prompt
    from rich.text import Text

    def prompt(words: str, **options: Any) -> str:
        return str(Prompt.ask(Text(words), console=screen, **options)).strip()

    chosen = prompt("a approve, e edit, r reject, c comment, all approve this and the rest", choices=list(_TYPES))
    kind = _TYPES[chosen]
    if kind == "edit":
        condition = prompt("Condition, as it is when empty", default="", show_default=False)
        label = prompt("Label", choices=arguments["labels"], default=arguments["label"])
        edited = {"condition": condition or arguments["condition"], "label": label}
        return {"type": kind, "edited_action": {"args": edited}}
    if kind in ("reject", "respond"):
        return {"type": kind, "message": prompt("Why", default="", show_default=False)}
    return {"type": kind}


_TYPES = {"a": "approve", "e": "edit", "r": "reject", "c": "respond", "all": "all"}


def _validation_rows(artifact: DistilledPrompt, file: Path, names: Columns) -> ExampleSet:
    """The rows; none that the artifact knows in another role."""
    from langchain_pld.evaluation.evaluate import gold_labels
    from langchain_pld.examples import read_examples

    rows = read_examples(file, artifact.task, columns=names, labelled=True)
    gold_labels(rows)
    for role, known in artifact.data.items():
        if role != "validation" and known.sha256 == rows.sha256:
            raise ExampleError(f"{file} holds the {role} rows of {artifact.id}; give validation rows")
    return rows


def _scored_again(artifact: DistilledPrompt, rows: ExampleSet, student: str, seed: int) -> DistilledPrompt:
    from langchain_pld.cli.embedded import ready_model
    from langchain_pld.cli.progress import StepBars
    from langchain_pld.distillation.search.rescoring import rescore

    model = ready_model(student)
    with stoppable(lambda: "nothing was written"), StepBars() as bars:
        progress = bars.counting("student reads the validation rows")
        return asyncio.run(rescore(artifact, rows, model, seed=seed, on_progress=progress))


def _summary(artifact: DistilledPrompt, out: Path) -> dict[str, Any]:
    review = artifact.review
    assert review is not None, "only a signed artifact is summed up"
    decisions = {
        key: {"type": one.type, "accepted": one.accepted and one.accepted.id, "message": one.message}
        for key, one in review.decisions.items()
    }
    parts = artifact.model_dump(mode="json", include={"scores", "notes", "finish_reason"})
    who = review.model_dump(mode="json", include={"reviewer", "time"})
    return {"artifact": str(out), "id": artifact.id, **who, "decisions": decisions, **parts}
