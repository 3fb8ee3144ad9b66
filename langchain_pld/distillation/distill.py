"""`distill`: the whole job in one call, for one student or several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Checkpointer, Interrupt
from typing_extensions import Unpack

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.blocking import blocking
from langchain_pld.distillation.config import DistillConfig, DistillSettings, check_models
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import Budget, Effort, Plan, plan_of
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.distillation.rules.embeddings import resolve_embeddings
from langchain_pld.distillation.run.progress import Progress, log_progress
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import remaining_budget
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import check_teacher
from langchain_pld.distillation.search.model_checks import check_student
from langchain_pld.distillation.state import DistillationInput
from langchain_pld.errors import AnswersPendingError, DistillationError, InputError
from langchain_pld.examples import ExampleSet, Rows, examples_from
from langchain_pld.models.resolve import resolve_chat_model
from langchain_pld.namespaces import namespace_label
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import model_spec
from langchain_pld.task import Task

__all__ = ["DistillOptions", "adistill", "adistill_many", "distill", "distill_many", "run_of_student"]

Report = Callable[[Progress], None]


class DistillOptions(DistillSettings, total=False):
    """Further options of `distill` and `distill_many`: the settings of a run, and these."""

    test: Rows | None
    """Rows that each student reads once, at the end, for the scores in the artifact."""
    effort: Effort | Plan
    """A preset, by default `light`, or concrete numbers."""
    incumbent: DistilledPrompt | None
    """The prompt now in use, which a new one has to beat; without a detectable gain it stays."""
    embeddings: Embeddings | str | None
    """Embeddings of drafted conditions, or `provider:name`; by default offline."""
    on_progress: Report | None
    """Called with each step's progress."""
    store: BaseStore | None
    """Keeps examples, teacher's answers and scores; with a persistent one, no call is paid twice."""
    checkpointer: Checkpointer
    """Keeps the state between nodes. A known run resumes at its unfinished node; a finished one returns its artifact. A
    run ended by its budget continues with another one."""
    run_id: str
    """Name of the run in store and checkpointer; by default `default`."""
    config: RunnableConfig | None
    """Callbacks, tags and metadata for the graph's run."""


async def adistill(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    teacher: BaseChatModel | str,
    student: BaseChatModel | str,
    **options: Unpack[DistillOptions],
) -> DistilledPrompt:
    """Distil a task's labelled examples into a tested prompt.

    `distill` is the blocking form, for notebooks too; it also blocks the event loop of a notebook or server.

    Args:
        task: What to decide.
        train: Rows that the teacher may see; like all rows a path, a data frame or a list, see `examples_from`.
        validation: Rows for selection and calibration.
        teacher: Chat model that writes the rules, or `provider:name`.
        student: Chat model that will decide, or `provider:name`.
        **options: `test` rows, `effort`, `seed`, `max_usd` and other limits, a `store` and more; see `DistillOptions`
            and `DistillConfig`.

    Raises:
        ExampleError: A text has two roles, or a label has no rows.
        InputError: Teacher or student is missing, there is no such preset, or the incumbent was made from another
            wording of the task.
        DistillationError: Too many of the teacher's calls failed, or the checkpointer knows a run of this name with
            another task, plan, incumbent or rows.
        StudentError: The student cannot be reached, or none of its answers can be read.
        AnswersPendingError: An offline teacher has to answer first; the message says what to do. Then call again.
    """
    check_models(teacher=teacher, student=student)
    job = _Job.of(task, train, validation, teacher, options)
    report = options.get("on_progress") or log_progress
    return await job.run(resolve_chat_model(student), options.get("run_id", "default"), job.plan.budget, report)


async def adistill_many(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    teacher: BaseChatModel | str,
    students: Sequence[BaseChatModel | str],
    **options: Unpack[DistillOptions],
) -> dict[str, DistilledPrompt]:
    """Distil a task for several students, one after another; `distill_many` is the blocking form.

    Students share the teacher's explanations, judgements and merged rules, which are paid once. Only questions about a
    student's mistakes and, with `choose="uncertain"`, about its hard examples are asked for each. They share one
    budget: what one student leaves is for the next. A resumed run continues with the unfinished student.

    Args:
        task: What to decide; see `adistill` for the other arguments.
        train: Rows that the teacher may see.
        validation: Rows for selection and calibration.
        teacher: Chat model that writes the rules, or `provider:name`.
        students: Chat models that will decide, or `provider:name`, with different names.
        **options: As in `adistill`; reported costs are those of all students so far.

    Returns:
        `provider:name` of each student to its artifact, in the given order.

    Raises:
        InputError: There is no student, one is missing, or two have the same name; or as in `adistill`.
        PLDError: As in `adistill`.
    """
    students = [students] if isinstance(students, str) else students
    check_models(teacher=teacher, **{f"student {number}": one for number, one in enumerate(students, 1)})
    job = _Job.of(task, train, validation, teacher, options)
    models = {model_spec(model): model for model in map(resolve_chat_model, students)}
    if not models or len(models) < len(students):
        msg = f"a run needs students with different names; got {', '.join(models) or 'none'}"
        raise InputError(msg)
    run_id, report = options.get("run_id", "default"), options.get("on_progress") or log_progress
    stores = {spec: RunStore(job.store, run_of_student(run_id, spec)) for spec in models}
    check_teacher(job.teacher)
    if len(models) > 1:  # a single one is checked where its run begins
        for spec, model in models.items():
            run = await Run.open("validate", task=task, plan=job.plan, store=stores[spec], student=model)
            await check_student(run, job.sets["validation"])
    done: dict[str, DistilledPrompt] = {}
    for number, (spec, model) in enumerate(models.items(), 1):
        if len(models) > 1:
            report(Progress(node="student", step=spec, note=f"{spec}, {number} of {len(models)}"))
        left = await remaining_budget(job.plan.budget, [stores[other] for other in done])
        done[spec] = await job.run(model, stores[spec].run_id, left, _with_costs_of(done, report))
    return done


distill = blocking(adistill)
distill_many = blocking(adistill_many)


def run_of_student(run_id: str, student: str) -> str:
    """Name of one student's part of a run in Store and checkpointer; `student` is its `provider:name`."""
    return f"{namespace_label(run_id)} {student}"  # the first space ends the run's name


@dataclass(frozen=True)
class _Job:
    """The checked inputs that the runs of all students share."""

    task: Task
    sets: dict[Role, ExampleSet]
    teacher: BaseChatModel
    plan: Plan
    settings: DistillConfig
    embeddings: Embeddings | None
    store: BaseStore
    checkpointer: Checkpointer
    incumbent: DistilledPrompt | None
    config: RunnableConfig | None

    @classmethod
    def of(
        cls, task: Task, train: Rows, validation: Rows, teacher: BaseChatModel | str, options: DistillOptions
    ) -> _Job:
        unknown = sorted(set(options) - set(DistillOptions.__annotations__))
        if unknown:
            msg = f"distill has no option {unknown[0]!r}; there are {', '.join(sorted(DistillOptions.__annotations__))}"
            raise TypeError(msg)
        rows: dict[Role, Rows | None] = {"train": train, "validation": validation, "test": options.get("test")}
        # Read only once: rows may come from a generator, and a file may be large.
        sets = {role: examples_from(found, task, source=role) for role, found in rows.items() if found is not None}
        check_roles(task, sets)
        settings = DistillConfig.model_validate(
            {name: value for name, value in options.items() if name in DistillSettings.__annotations__}
        )
        incumbent, embeddings = options.get("incumbent"), options.get("embeddings")
        if incumbent is not None:
            _check_incumbent(task, incumbent)
        return cls(
            task=task,
            sets=sets,
            teacher=resolve_chat_model(teacher),
            plan=settings.resolve_plan(plan_of(options.get("effort", "light"))),
            settings=settings,
            embeddings=resolve_embeddings(embeddings) if isinstance(embeddings, str) else embeddings,
            store=options.get("store") or InMemoryStore(),
            checkpointer=options.get("checkpointer"),
            incumbent=incumbent,
            config=options.get("config"),
        )

    async def run(self, student: BaseChatModel, run_id: str, budget: Budget, report: Report) -> DistilledPrompt:
        """The artifact of one student."""
        graph = build_distillation_graph(
            teacher=self.teacher,
            student=student,
            embeddings=self.embeddings,
            store=self.store,
            checkpointer=self.checkpointer,
        )
        plan = self.plan.model_copy(update={"budget": budget})
        # Every limit, even `None`: otherwise a resumed run would keep those it began with.
        limits = {f"max_{name}": limit for name, limit in budget.model_dump().items()}
        context = self.settings.model_copy(update=limits)
        start: DistillationInput = {"run_id": run_id, "task": self.task, "plan": plan}
        if self.incumbent is not None:
            start["incumbent"] = self.incumbent
        config, goes_on = RunnableConfig(**{**(self.config or {}), "run_name": "distil"}), False
        if self.checkpointer:
            config["configurable"] = {"thread_id": run_id, **config.get("configurable", {})}
            known = await graph.aget_state(config)
            if known.values:
                _check_same(known.values, start, self.sets)
                if isinstance(self.checkpointer, BaseCheckpointSaver) and _may_spend_more(known.values, plan):
                    # Everything paid for is in the Store, so a restarted run soon catches up.
                    await self.checkpointer.adelete_thread(config["configurable"]["thread_id"])
                elif "artifact" in known.values and not known.next:
                    return DistilledPrompt.model_validate(known.values["artifact"])
                else:
                    goes_on = True
        kept = RunStore(self.store, run_id)
        for role, rows in self.sets.items():
            await kept.put_examples(role, rows)
        artifact: DistilledPrompt | None = None
        async for mode, event in graph.astream(
            None if goes_on else start, config, context=context, stream_mode=["custom", "values"]
        ):
            if mode == "custom":
                report(Progress.model_validate(event))
            elif isinstance(event, dict):
                artifact = event.get("artifact", artifact)
                _check_not_waiting(event.get("__interrupt__", ()))
        assert artifact is not None, "the graph ended without an artifact"
        return artifact


def _check_incumbent(task: Task, incumbent: DistilledPrompt) -> None:
    """Check that the incumbent is for this wording of the task."""
    if incumbent.task.label_names != task.label_names or incumbent.system_prompt != compile_prompt(
        task, incumbent.rules, incumbent.answer
    ):
        msg = (
            f"the incumbent {incumbent.id} was made from another wording of the task {task.name!r}; pass the "
            "incumbent's task, or no incumbent"
        )
        raise InputError(msg)


def _may_spend_more(known: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a run now has another budget that may change how it ends."""
    if known["plan"].budget == plan.budget or "reviewed" in known:
        return False
    return "artifact" not in known or known["artifact"].finish_reason == "budget"


def _check_not_waiting(interrupts: Iterable[Interrupt]) -> None:
    """Check that a run is not waiting for its teacher."""
    for interrupt in interrupts:
        if isinstance(interrupt.value, dict) and interrupt.value.get("waits_for") == "answers":
            raise AnswersPendingError(interrupt.value["what_to_do"])


def _check_same(known: dict[str, Any], start: DistillationInput, sets: Mapping[Role, ExampleSet]) -> None:
    """Check that a resumed run has the inputs it began with, its budget aside."""
    changed = [name for name in ("task", "incumbent") if known.get(name) != start.get(name)]
    unlimited = [plan.model_copy(update={"budget": Budget()}) for plan in (known["plan"], start["plan"])]
    if unlimited[0] != unlimited[1]:
        changed.append("plan")
    if "data" in known:
        began = {role: fingerprint.sha256 for role, fingerprint in known["data"].items()}
        if began != {role: rows.sha256 for role, rows in sets.items()}:
            changed.append("rows")
    if changed:
        msg = (
            f"the run {start['run_id']!r} began with another {' and other '.join(changed)}; give a new run_id, "
            "answers that were paid for are not paid again"
        )
        raise DistillationError(msg)


def _with_costs_of(done: dict[str, DistilledPrompt], report: Report) -> Report:
    """The callback for one student, which adds the costs of the others."""
    before = sum(line.cost or 0.0 for artifact in done.values() for line in artifact.ledger)

    def report_total(progress: Progress) -> None:
        if progress.cost is not None:
            progress = progress.model_copy(update={"cost": before + progress.cost})
        report(progress)

    return report_total
