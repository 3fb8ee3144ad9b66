"""Several students in one run: the teacher's work is shared, each student gets the prompt that suits it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Checkpointer

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.blocking import run_blocking
from langchain_pld.distillation.config import check_models
from langchain_pld.distillation.distill import adistill
from langchain_pld.distillation.plan import Effort, Plan, plan_of
from langchain_pld.distillation.roles import check_roles
from langchain_pld.distillation.rules.embeddings import resolve_embeddings
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import left_of
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import check_teacher
from langchain_pld.distillation.search.model_checks import check_student
from langchain_pld.errors import InputError
from langchain_pld.examples import Rows, examples_from
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.namespaces import namespace_label
from langchain_pld.student.providers import model_spec
from langchain_pld.task import Task

__all__ = ["adistill_many", "distill_many", "run_of_student"]


async def adistill_many(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    test: Rows | None = None,
    teacher: BaseChatModel | str,
    students: Sequence[BaseChatModel | str],
    effort: Effort | Plan = "light",
    seed: int = 0,
    incumbent: DistilledPrompt | None = None,
    embeddings: Embeddings | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> dict[str, DistilledPrompt]:
    """Distil a task for several students, one after the other.

    What the teacher was asked for one student is not paid again for the next: explanations, judgements, merged rules.
    It is asked anew only where a student's answers are part of the question: about that student's mistakes and, with
    `choose="uncertain"`, about the examples that are hard for it. The budget is one for all: what a student leaves is
    for those after it.

    Args:
        task: What is to be decided.
        train: Rows that the teacher may see.
        validation: Rows for selection and calibration.
        test: Rows that are read once by each student, at the end.
        teacher: Chat model that writes the rules, or `provider:name`.
        students: Chat models that will decide, or `provider:name`; no two of one name.
        effort: A preset, or concrete numbers.
        seed: Seed of every random choice.
        incumbent: The prompt in use now, which each new one has to beat.
        embeddings: As in `adistill`.
        on_progress: Called with each step's progress; costs are those of all students so far.
        store: As in `adistill`.
        checkpointer: As in `adistill`; a run goes on with the student that was not finished.
        run_id: Name of the run; each student's part is kept under a name of its own, see `run_of_student`.
        config: As in `adistill`.

    Returns:
        The artifacts by the students' `provider:name`, in the order given.

    Raises:
        InputError: There is no student, one is missing, or two have one name; or as in `adistill`.
        PLDError: As in `adistill`.
    """
    if isinstance(students, str):
        students = [students]
    check_roles(task, {"train": train, "validation": validation, **({"test": test} if test is not None else {})})
    check_models(teacher=teacher, **{f"student {number}": one for number, one in enumerate(students, 1)})
    plan = plan_of(effort)
    models = {model_spec(model): model for model in map(resolve_chat_model, students)}
    if not models or len(models) < len(students):
        msg = f"a run needs students, each of another name; got {', '.join(models) or 'none'}"
        raise InputError(msg)
    # Read once for all: rows may come from a generator, and a file may be large.
    train = examples_from(train, task, source="train")
    validation = examples_from(validation, task, source="validation")
    test = None if test is None else examples_from(test, task, source="test")
    store = store or InMemoryStore()
    teacher = resolve_chat_model(teacher)
    embeddings = resolve_embeddings(embeddings) if isinstance(embeddings, str) else embeddings
    check_teacher(teacher)
    if len(models) > 1:  # a single one is looked at where its run begins
        for spec, student in models.items():
            kept = RunStore(store, run_of_student(run_id, spec))
            run = await Run.open("validate", task=task, plan=plan, store=kept, student=student)
            await check_student(run, validation)
    done: dict[str, DistilledPrompt] = {}
    for number, (spec, student) in enumerate(models.items(), 1):
        left = await left_of(plan.budget, [RunStore(store, run_of_student(run_id, other)) for other in done])
        tell = _telling(on_progress, done)
        if len(models) > 1:
            tell(Progress(node="student", step=spec, note=f"{spec}, {number} of {len(models)}"))
        done[spec] = await adistill(
            task,
            train=train,
            validation=validation,
            test=test,
            teacher=teacher,
            student=student,
            effort=plan.model_copy(update={"budget": left}),
            seed=seed,
            incumbent=incumbent,
            embeddings=embeddings,
            on_progress=tell,
            store=store,
            checkpointer=checkpointer,
            run_id=run_of_student(run_id, spec),
            config=config,
        )
    return done


def distill_many(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    test: Rows | None = None,
    teacher: BaseChatModel | str,
    students: Sequence[BaseChatModel | str],
    effort: Effort | Plan = "light",
    seed: int = 0,
    incumbent: DistilledPrompt | None = None,
    embeddings: Embeddings | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> dict[str, DistilledPrompt]:
    """As `adistill_many`, for code that does not await, notebooks included; see there and `distill`."""
    return run_blocking(
        adistill_many(
            task,
            train=train,
            validation=validation,
            test=test,
            teacher=teacher,
            students=students,
            effort=effort,
            seed=seed,
            incumbent=incumbent,
            embeddings=embeddings,
            on_progress=on_progress,
            store=store,
            checkpointer=checkpointer,
            run_id=run_id,
            config=config,
        )
    )


def run_of_student(run_id: str, student: str) -> str:
    """Name of one student's part of a run, in Store and checkpointer.

    Args:
        run_id: Name of the run.
        student: The student's `provider:name`.
    """
    return f"{namespace_label(run_id)} {student}"  # the first space ends the run's name


def _telling(
    on_progress: Callable[[Progress], None] | None, done: dict[str, DistilledPrompt]
) -> Callable[[Progress], None]:
    """The callback of one student, which adds what the others have cost."""
    before = sum(line.cost or 0.0 for artifact in done.values() for line in artifact.ledger)

    def tell(progress: Progress) -> None:
        if progress.cost is not None:
            progress = progress.model_copy(update={"cost": before + progress.cost})
        if on_progress is not None:
            on_progress(progress)

    return tell
