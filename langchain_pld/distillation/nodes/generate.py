"""generate: the teacher reasons about each example under its label.

In: files, rows, or examples in the Store. Out: the examples chosen to learn from and their explanations, both in
the Store. Labelled train rows come first; where they do not fill the plan, unlabelled ones on whose label the votes of
the teacher agree; where the plan wants it, made-up ones for labels with few. One joint call explains an example and
drafts the condition that `extract` checks. An example whose call fails is recorded as failed; too many of them end the
run, with everything paid for kept.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage
from langgraph.runtime import Runtime
from pydantic import BaseModel, Field

from langchain_pld.artifact import DataFingerprint
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.nodes.example_selection import POOL, choose_uncertain, zero_shot_losses
from langchain_pld.distillation.nodes.pending_answers import Node
from langchain_pld.distillation.nodes.run_input import load
from langchain_pld.distillation.nodes.synthetic_examples import invent, small_labels
from langchain_pld.distillation.nodes.voting import elect
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.roles import Role, balanced, labelled, text_key
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.spending import BudgetSpent, Spending
from langchain_pld.distillation.run.store import ChosenRow, RunStore, content_key
from langchain_pld.distillation.run.teacher import Teacher, together
from langchain_pld.distillation.search.model_checks import check_embeddings, check_student
from langchain_pld.distillation.search.scorer import OnProgress
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.templates import fill, label_lines
from langchain_pld.errors import DistillationError
from langchain_pld.examples import Example, ExampleSet
from langchain_pld.student.sanitize import clean_text, delimited
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["Explanation", "explanation_messages", "generate_node"]


class Explanation(BaseModel):
    """Why an example has its label, and the condition drafted from it."""

    reason: str = Field(min_length=1, max_length=400)
    condition: str = Field(min_length=10, max_length=300)
    cues: list[str] = Field(default_factory=list, max_length=3)
    counter_cues: list[str] = Field(default_factory=list, max_length=2)


def generate_node(models: RunModels) -> Node:
    """Build the node."""

    async def generate(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        plan = settings(runtime).over(state.get("plan"))
        run, task, sets = await load(state, runtime, plan)
        spending = await Spending.of(run, plan, runtime)
        teacher = Teacher(
            await models.teacher_for(runtime),
            node="generate",
            store=run.store,
            concurrency=plan.concurrency,
            spending=spending,
            unproven=True,
        )
        await check_student(task, plan, await models.student_for(runtime), sets["validation"], run, spending)
        await check_embeddings(await models.embeddings_for(runtime), run, spending)
        choice = _Choice(task, sets, plan, run, teacher, spending, runtime)
        chosen = await choice.make(models)
        log = [f"plan: {plan.describe()}", *choice.log]
        failures = await _explain_all(task, [row.example for row in chosen], teacher, run, plan, runtime)
        note = f"generate: {len(chosen) - len(failures)} of {len(chosen)} examples explained by {teacher.spec}"
        if failures:
            note += f"; {len(failures)} failed, first: {failures[0]}"
        runtime.stream_writer(
            Progress(node="generate", step="done", done=len(chosen), total=len(chosen), note=note).model_dump()
        )
        return {
            "run_id": run.run_id,
            "task": task,
            "plan": plan,
            "data": {
                role: DataFingerprint(sha256=found.sha256, rows=len(found), source=found.source)
                for role, found in sets.items()
            },
            # They lie in the Store now.
            **{f"{role}_rows": [] for role in sets if state.get(f"{role}_rows")},
            "explained": len(chosen) - len(failures),
            "log": [*log, note],
            "ledger": spending.ledger,
        }

    return generate


def explanation_messages(task: Task, example: Example, *, objection: str = "") -> list[BaseMessage]:
    """The question about one example; `objection` says what was wrong with an earlier answer."""
    system = fill("explain", instructions=task.instructions, labels=label_lines(task), label=str(example.label))
    text = delimited(clean_text(task.render(example.input)))
    return [SystemMessage(system), HumanMessage(f"{text}\n\n{objection}" if objection else text)]


class _Choice:
    """The choice of the examples that the teacher explains.

    Args:
        task: The task.
        sets: The rows of each role; of validation and test rows it is only looked whether a text stands there.
        plan: The run's numbers.
        run: Where the choice is kept.
        teacher: Votes, and makes up examples.
        spending: The run's ledger and budget.
        runtime: Takes the progress.
    """

    def __init__(
        self,
        task: Task,
        sets: dict[Role, ExampleSet],
        plan: Plan,
        run: RunStore,
        teacher: Teacher,
        spending: Spending,
        runtime: Runtime[DistillationContext],
    ) -> None:
        self.log: list[str] = []
        self._task = task
        self._sets = sets
        self._plan = plan
        self._run = run
        self._teacher = teacher
        self._spending = spending
        self._runtime = runtime
        self._seed = settings(runtime).seed

    async def make(self, models: RunModels) -> list[ChosenRow]:
        """The examples; the same ones when a run is resumed."""
        train, wanted = self._sets["train"], self._plan.train_examples
        gold = labelled(train)
        rows = await self._hard(gold, models) if len(gold) > wanted else gold
        chosen = [ChosenRow(example=row) for row in rows]
        unlabelled = [row for row in train if row.label is None]
        if unlabelled and len(chosen) < wanted:
            voted = await self._voted(unlabelled, wanted - len(chosen))
            chosen += [ChosenRow(example=row, origin="voted") for row in voted]
        if self._plan.synthetic_per_small_label and chosen:
            made_up = await self._made_up([row.example for row in chosen])
            chosen += [ChosenRow(example=row, origin="synthetic") for row in made_up]
        missing = set(self._task.label_names) - {row.example.label for row in chosen}
        if missing:
            self.log.append(f"generate: no example has the label {', '.join(sorted(missing))}")
        await self._run.put_chosen(chosen)
        return chosen

    async def _hard(self, gold: ExampleSet, models: RunModels) -> ExampleSet:
        plan, wanted = self._plan, self._plan.train_examples
        if plan.choose == "uncertain":
            pool = balanced(gold, POOL * wanted, self._seed)
            student = await models.student_for(self._runtime)
            try:
                losses = await zero_shot_losses(
                    self._task,
                    student,
                    pool,
                    self._run,
                    self._spending,
                    self._seed,
                    self._say("student reads examples without rules"),
                )
            except BudgetSpent as spent:
                self.log.append(f"generate: examples chosen at random, {spent}")
            else:
                self.log.append(
                    f"generate: {wanted} of {len(gold)} labelled rows, half of them the hardest for the student "
                    f"among {len(pool)}"
                )
                return choose_uncertain(pool, losses, wanted, self._seed)
        self.log.append(f"generate: {wanted} of {len(gold)} labelled rows, balanced over labels")
        return balanced(gold, wanted, self._seed)

    async def _voted(self, rows: Sequence[Example], wanted: int) -> list[Example]:
        plan = self._plan
        some = random.Random(self._seed).sample(rows, min(wanted, len(rows)))
        voted, failures = await elect(
            self._task,
            some,
            self._teacher,
            votes=plan.votes,
            agreement=plan.agreement,
            on_progress=self._say("teacher votes on unlabelled examples"),
        )
        _stop_at_too_many(failures, plan.votes * len(some), self._teacher, plan)
        counts = Counter(row.label for row in voted)
        shares = ", ".join(f"{count} {label}" for label, count in sorted(counts.items(), key=lambda one: str(one[0])))
        self.log.append(
            f"generate: {len(voted)} of {len(some)} unlabelled rows have a label by {plan.votes} votes, agreement "
            f"{plan.agreement:.0%}" + (f": {shares}" if shares else "")
        )
        return voted

    async def _made_up(self, rows: Sequence[Example]) -> list[Example]:
        task, plan, count = self._task, self._plan, self._plan.synthetic_per_small_label
        screen = await asyncio.to_thread(Screen.of, task, self._sets["train"])
        taken = {text_key(task, row.input) for found in self._sets.values() for row in found}
        made: list[Example] = []

        async def made_up(label: str) -> tuple[list[Example], list[Example]] | Failure:
            answer = await invent(
                task, label, rows, self._teacher, count=count, screen=screen, taken=taken, seed=self._seed
            )
            if isinstance(answer, Failure):
                return answer
            voted, _ = await elect(task, answer, self._teacher, votes=plan.votes, agreement=plan.agreement)
            return answer, voted

        labels = small_labels(task, rows)
        for label, outcome in zip(labels, await together(map(made_up, labels)), strict=True):
            if isinstance(outcome, Failure):
                self.log.append(f"generate: no examples made up for {label}: {outcome.message}")
                continue
            answer, voted = outcome
            kept = [row for row in voted if row.label == label]
            self.log.append(
                f"generate: {len(kept)} of {count} made-up examples for {label} kept, {count - len(answer)} screened "
                f"out, {len(answer) - len(kept)} lost the vote"
            )
            made += kept
        return made

    def _say(self, step: str) -> OnProgress:
        return lambda done, total: self._runtime.stream_writer(
            Progress(node="generate", step=step, done=done, total=total).model_dump()
        )


async def _explain_all(
    task: Task,
    rows: Sequence[Example],
    teacher: Teacher,
    run: RunStore,
    plan: Plan,
    runtime: Runtime[DistillationContext],
) -> list[str]:
    """Explain each row; returns the reasons of those without an explanation."""
    failures: list[Failure] = []
    done = 0

    async def explain(example: Example) -> None:
        nonlocal done
        answer = await teacher.ask(explanation_messages(task, example), Explanation)
        if isinstance(answer, Failure):
            failures.append(answer)
            await run.put_many("explanations", {content_key(example): {"failed": answer.model_dump()}})
        else:
            await run.put_many("explanations", {content_key(example): {"explanation": answer.model_dump()}})
        done += 1
        runtime.stream_writer(
            Progress(node="generate", step="teacher explains examples", done=done, total=len(rows)).model_dump()
        )

    # Asked one label after the other, so that the prompts of one label share their prefix in the model's cache.
    by_label = sorted(rows, key=lambda row: str(row.label))
    await together(explain(example) for example in by_label)
    _stop_at_too_many(failures, len(rows), teacher, plan)
    return [f"{failure.kind}: {failure.message}" for failure in failures]


def _stop_at_too_many(failures: Sequence[Failure], calls: int, teacher: Teacher, plan: Plan) -> None:
    """End the run where too many calls failed; a call that the budget did not allow is none of them."""
    failed = [failure for failure in failures if failure.kind != "budget"]
    if len(failed) > plan.max_failure_share * calls:
        msg = (
            f"{len(failed)} of {calls} calls to the teacher {teacher.spec} failed, more than the "
            f"{plan.max_failure_share:.0%} allowed; first reason: {failed[0].kind}: {failed[0].message}. What was paid "
            "for is kept: mend the cause and run again with the same store"
        )
        raise DistillationError(msg)
