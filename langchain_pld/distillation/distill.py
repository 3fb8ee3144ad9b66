"""`distill`: the whole job in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.store.base import BaseStore
from langgraph.store.memory import InMemoryStore
from langgraph.types import Checkpointer, Interrupt

from langchain_pld.artifact import DistilledPrompt
from langchain_pld.blocking import run_blocking
from langchain_pld.distillation.budget import Budget
from langchain_pld.distillation.config import DistillConfig, check_models
from langchain_pld.distillation.graph import build_distillation_graph
from langchain_pld.distillation.plan import Effort, Plan, plan_of
from langchain_pld.distillation.roles import Role, check_roles
from langchain_pld.distillation.rules.embeddings import resolve_embeddings
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.state import DistillationInput
from langchain_pld.errors import AnswersPendingError, DistillationError, InputError
from langchain_pld.examples import ExampleSet, Rows, examples_from
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task

__all__ = ["adistill", "distill"]


async def adistill(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    test: Rows | None = None,
    teacher: BaseChatModel | str,
    student: BaseChatModel | str,
    effort: Effort | Plan = "light",
    seed: int = 0,
    incumbent: DistilledPrompt | None = None,
    embeddings: Embeddings | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> DistilledPrompt:
    """Distil a task's labelled examples into a tested prompt.

    Args:
        task: What is to be decided.
        train: Rows that the teacher may see; here as below a path, a data frame or a list, see `examples_from`.
        validation: Rows for selection and calibration.
        test: Rows that are read once, at the end, for the scores in the artifact.
        teacher: Chat model that writes the rules, or `provider:name`.
        student: Chat model that will decide, or `provider:name`.
        effort: A preset, or concrete numbers.
        seed: Seed of every random choice.
        incumbent: The prompt in use now, which a new one has to beat; without a detectable gain it stays.
        embeddings: Vectors of drafted conditions, for clustering, or `provider:name`; an offline default when absent.
        on_progress: Called with each step's progress.
        store: Keeps examples, teacher's answers and scores; with a lasting one, a call once paid is not paid again.
        checkpointer: Keeps the state between nodes. A run that it knows goes on at the node that was not finished;
            one that is finished gives its artifact. A run that its budget ended goes on when it is given another one.
        run_id: Name of the run in store and checkpointer.
        config: Callbacks, tags and metadata for the graph's run.

    Raises:
        ExampleError: A text plays two roles, or a label has no rows.
        InputError: Teacher or student is missing, there is no such preset, or the incumbent's prompt was made from
            another wording of the task.
        DistillationError: Too many of the teacher's calls failed, or the checkpointer knows a run of this name that
            began with another task, plan, incumbent or rows.
        StudentError: The student cannot be reached, or no answer of it can be read.
        AnswersPendingError: The teacher answers later; the message says what to do. Call again once it has answered.
    """
    sets: dict[Role, ExampleSet] = {
        "train": examples_from(train, task, source="train"),
        "validation": examples_from(validation, task, source="validation"),
    }
    if test is not None:
        sets["test"] = examples_from(test, task, source="test")
    check_roles(task, sets)
    check_models(teacher=teacher, student=student)
    plan = plan_of(effort)
    graph = build_distillation_graph(
        teacher=teacher,
        student=student,
        embeddings=resolve_embeddings(embeddings) if isinstance(embeddings, str) else embeddings,
        store=store or InMemoryStore(),
        checkpointer=checkpointer,
    )
    start: DistillationInput = {"run_id": run_id, "task": task, "plan": plan}
    if incumbent is not None:
        _check_incumbent(task, incumbent)
        start["incumbent"] = incumbent
    config = RunnableConfig(**{**(config or {}), "run_name": "distil"})
    artifact: DistilledPrompt | None = None
    goes_on = False
    if checkpointer:
        config["configurable"] = {"thread_id": run_id, **config.get("configurable", {})}
        known = await graph.aget_state(config)
        if known.values:
            _check_same(run_id, known.values, start, sets)
            if isinstance(checkpointer, BaseCheckpointSaver) and _may_spend_more(known.values, plan):
                # All that was paid for lies in the Store: begun again, the run is soon where it was.
                await checkpointer.adelete_thread(config["configurable"]["thread_id"])
            elif "artifact" in known.values and not known.next:
                return DistilledPrompt.model_validate(known.values["artifact"])
            else:
                goes_on = True
    run = RunStore(graph.store, run_id)
    for role, rows in sets.items():
        await run.put_examples(role, rows)
    async for mode, event in graph.astream(
        None if goes_on else start, config, context=DistillConfig(seed=seed), stream_mode=["custom", "values"]
    ):
        if mode == "custom" and on_progress:
            on_progress(Progress.model_validate(event))
        elif mode == "values" and isinstance(event, dict):
            artifact = event.get("artifact", artifact)
            _check_answered(event.get("__interrupt__", ()))
    assert artifact is not None, "the graph ended without an artifact"
    return artifact


def distill(
    task: Task,
    *,
    train: Rows,
    validation: Rows,
    test: Rows | None = None,
    teacher: BaseChatModel | str,
    student: BaseChatModel | str,
    effort: Effort | Plan = "light",
    seed: int = 0,
    incumbent: DistilledPrompt | None = None,
    embeddings: Embeddings | str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    store: BaseStore | None = None,
    checkpointer: Checkpointer = None,
    run_id: str = "default",
    config: RunnableConfig | None = None,
) -> DistilledPrompt:
    """As `adistill`, for code that does not await, notebooks included; see there for arguments and errors.

    It blocks until the run has ended, also the event loop of a notebook or server.
    """
    return run_blocking(
        adistill(
            task,
            train=train,
            validation=validation,
            test=test,
            teacher=teacher,
            student=student,
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


def _check_incumbent(task: Task, incumbent: DistilledPrompt) -> None:
    """Make sure that what would stay is the prompt that is in use."""
    if incumbent.task.label_names != task.label_names or incumbent.system_prompt != compile_prompt(
        task, incumbent.rules, incumbent.answer
    ):
        msg = (
            f"the incumbent {incumbent.id} was made from another wording of the task {task.name!r}; give the task that "
            "it holds, or no incumbent"
        )
        raise InputError(msg)


def _may_spend_more(known: Mapping[str, Any], plan: Plan) -> bool:
    """Whether a run has another budget now that may make a difference to how it ends."""
    if known["plan"].budget == plan.budget or "reviewed" in known:
        return False
    return "artifact" not in known or known["artifact"].finish_reason == "budget"


def _check_answered(interrupts: Iterable[Interrupt]) -> None:
    """Make sure that a run does not wait for its teacher."""
    for waiting in interrupts:
        if isinstance(waiting.value, dict) and waiting.value.get("waits_for") == "answers":
            raise AnswersPendingError(waiting.value["what_to_do"])


def _check_same(run_id: str, known: dict[str, Any], start: DistillationInput, sets: Mapping[Role, ExampleSet]) -> None:
    """Make sure that a run goes on with what it began with, its budget aside."""
    changed = [what for what in ("task", "incumbent") if known.get(what) != start.get(what)]
    if _unlimited(known["plan"]) != _unlimited(start["plan"]):
        changed.append("plan")
    if "data" in known:
        began = {role: fingerprint.sha256 for role, fingerprint in known["data"].items()}
        if began != {role: rows.sha256 for role, rows in sets.items()}:
            changed.append("rows")
    if changed:
        msg = (
            f"the run {run_id!r} began with another {' and other '.join(changed)}; give a new run_id, "
            "answers that were paid for are not paid again"
        )
        raise DistillationError(msg)


def _unlimited(plan: Plan) -> Plan:
    return plan.model_copy(update={"budget": Budget()})
