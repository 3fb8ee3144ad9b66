"""validate: the student decides which prompt is best, and whether the run goes on.

In: merged rules, later proposals of edits. Out: the best prompt so far, and at the end the artifact. The zero-shot
prompt and the rules are scored on the validation rows with the same search of the answer form and the same calibration.
From the better of the two, single steps are taken as long as the log loss falls; in later passes each proposal is such
a step. The best is kept always. At the end it replaces the old prompt only when a paired comparison finds it better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langgraph.runtime import Runtime

from langchain_pld.answer import AnswerFormat, Scorer
from langchain_pld.artifact import FinishReason
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.nodes.overview import measured
from langchain_pld.distillation.nodes.pending_answers import Node
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.rules.edits import Proposal, apply_edits
from langchain_pld.distillation.rules.prompt_size import fit_to_budget, token_counter
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.run.spending import BudgetSpent, Spending
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.run.teacher import Teacher
from langchain_pld.distillation.search.answer_formats import answer_formats, described, propose_words, search
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.search.hill_climbing import Spare, climb, strongest_first
from langchain_pld.distillation.search.promotion import Contest, Say, release
from langchain_pld.distillation.search.racing import stratified_order
from langchain_pld.distillation.search.scorer import OnProgress, StudentScorer
from langchain_pld.distillation.search.student_probes import probed, readable
from langchain_pld.distillation.state import DistillationState
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.evaluation.metrics import confusion_tables, macro_f1
from langchain_pld.examples import ExampleSet
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.providers import fingerprint_of, most_labels, tokenizer_of
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["validate_node"]


def validate_node(models: RunModels) -> Node:
    """Build the node."""

    async def validate(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        log: list[str] = []

        def tell(line: str) -> None:
            """Into the run's log, and to who watches it."""
            log.append(f"validate: {line}")
            runtime.stream_writer(Progress(node="validate", step="done", done=1, total=1, note=log[-1]).model_dump())

        run = RunStore(runtime.store, state["run_id"])
        task, plan, seed = state["task"], state["plan"], settings(runtime).seed
        spending = await Spending.of(run, plan, runtime)
        student = await models.student_for(runtime)
        teacher = await models.teacher_for(runtime)
        rows = stratified_order(await run.required("validation"), seed)
        formats: list[AnswerFormat] = []
        scorer = state.get("scorer")
        if scorer is None:
            asker = Teacher(teacher, node="validate", store=run.store, concurrency=plan.concurrency, spending=spending)
            formats, scorer = await _ways_to_answer(task, plan, student, asker, rows, run, spending, log)
        fingerprint = await asyncio.to_thread(fingerprint_of, student)
        bench = StudentScorer(task, student, fingerprint, scorer, run, spending, node="validate", seed=seed)
        here = _Pass(bench, run, plan, rows, lambda node, step: _progress(runtime, node, step), tell)
        if formats:
            log.append(f"validate: answers of {fingerprint.spec} are read by {scorer}")
            contest, improved = await here.first(state, formats)
        else:
            contest, improved = await here.later(state)
        tried = [*state.get("tried", ()), *here.notes]
        update: dict[str, Any] = {"tried": tried, "scorer": scorer, "round": state.get("round", 0) + 1, "proposals": []}
        if contest is not None:
            update |= {"zero_shot": contest.zero_shot.candidate, "champion": contest.champion.candidate}
            if contest.all_rules is not None:
                update["all_rules"] = contest.all_rules.candidate
            prompts = {"zero-shot": contest.zero_shot, "incumbent": contest.incumbent, "best so far": contest.champion}
            update["measured"] = measured(prompts, rows, task.label_names)
        ended = here.end(contest, improved, state.get("round", 0))
        if ended is not None:
            artifact, reason = await release(
                contest,
                bench,
                run,
                rows,
                plan,
                first_choice=formats[0] if formats else state["champion"].answer,
                ended=ended,
                teacher=await asyncio.to_thread(fingerprint_of, teacher),
                data=state["data"],
                parent=state["incumbent"].id if state.get("incumbent") else None,
                trials=tried,
                say=here.say,
            )
            log.append(f"validate: {reason}")
            runtime.stream_writer(Progress(node="validate", step="done", done=1, total=1, note=reason).model_dump())
            update |= {"artifact": artifact, "finish_reason": artifact.finish_reason}
        return {**update, "log": log, "ledger": spending.ledger}

    return validate


class _Pass:
    """One pass of the node: what it scores with, and what it has to say.

    Args:
        bench: Scores candidates.
        run: The run's part of the Store.
        plan: The run's numbers.
        rows: The validation rows, each beginning of which stands for the whole.
        say: Makes the progress callback of a node and step.
        tell: Called with a line about each try, at once.
    """

    def __init__(
        self, bench: StudentScorer, run: RunStore, plan: Plan, rows: ExampleSet, say: Say, tell: Callable[[str], None]
    ) -> None:
        self.say = say
        self.notes: list[str] = []
        self._bench = bench
        self._run = run
        self._plan = plan
        self._rows = rows
        self._tell = tell

    async def first(self, state: DistillationState, formats: list[AnswerFormat]) -> tuple[Contest | None, bool]:
        """Zero-shot against all rules, then single steps from the better one; `None` where the budget is spent."""
        plan = self._plan
        # The prompt without rules has the same choice of answer forms and the same calibration: a fair fight.
        zero_shot, without = await search((), formats, plan.answer_forms, self.score, "zero-shot")
        if zero_shot is None:
            return None, False
        incumbent = await self._incumbent(state)
        if self._at_ceiling(zero_shot):
            self.notes += _tried({"without rules": without})
            return Contest(zero_shot, zero_shot, incumbent), False
        rules = strongest_first(state["rules"])
        all_rules: ScoredCandidate | None = None
        with_rules: list[ScoredCandidate] = []
        if rules:
            all_rules, with_rules = await search(rules, formats, plan.answer_forms, self.score, "all rules")
        self.notes += _tried({"without rules": without, "with all rules": with_rules})
        start = all_rules if all_rules is not None and all_rules.loss < zero_shot.loss else zero_shot
        spare = Spare(rules, state.get("drafts", {}), tuple(state.get("pool", ())), orders=plan.orders)
        champion = await climb(
            start, zero_shot, all_rules, gold_labels(self._rows), spare, plan.trials, self.attempt, self._tell
        )
        return Contest(zero_shot, champion, incumbent, all_rules), True

    async def later(self, state: DistillationState) -> tuple[Contest | None, bool]:
        """The best prompt so far, with each proposal that makes it better; or the rules that a person accepted."""
        # Scored before, so these come from the Store.
        zero_shot = await self.score(state["zero_shot"], "zero-shot")
        incumbent = await self._incumbent(state)
        best = state["champion"]
        if "reviewed" in state:
            # Without rules the prompt is the zero-shot one, which has an answer form of its own.
            accepted = tuple(state["rules"])
            best = Candidate(rules=accepted, answer=state["artifact"].answer) if accepted else state["zero_shot"]
        champion = await self.score(best, "reviewed rules" if "reviewed" in state else "the best rules so far")
        if zero_shot is None or champion is None:
            return None, False
        if "reviewed" in state:
            return Contest(zero_shot, champion, incumbent, reviewed=True), False
        train = await self._run.taught()
        screen = await asyncio.to_thread(Screen.of, self._bench.task, train)
        count = await asyncio.to_thread(token_counter, self._bench.student)
        improved = False
        for proposal in state.get("proposals", ()):
            candidate = await asyncio.to_thread(self._edited, champion.candidate, proposal, train, screen, count)
            if candidate == champion.candidate:
                continue
            outcome = await self.attempt(candidate, champion, proposal.name)
            if isinstance(outcome, str):
                self._tell(f"{proposal.name}: {outcome}")
            elif outcome.loss < champion.loss:
                self._tell(f"{proposal.name}: taken, log loss {champion.loss:.3f} to {outcome.loss:.3f}")
                champion, improved = outcome, True
            else:
                self._tell(f"{proposal.name}: not taken, log loss {champion.loss:.3f} to {outcome.loss:.3f}")
        all_rules = await self.score(state["all_rules"], "all rules") if "all_rules" in state else None
        return Contest(zero_shot, champion, incumbent, all_rules), improved

    def end(self, contest: Contest | None, improved: bool, passes: int) -> FinishReason | None:
        """Why the search is over, or `None` when the rules go back to critique."""
        if contest is None or self._bench.spending.stopped:
            return "budget"
        if contest.reviewed:
            return "reviewed"
        if self._at_ceiling(contest.champion):
            return "ceiling"
        return "converged" if not improved or passes >= self._plan.rounds else None

    async def score(self, candidate: Candidate, what: str) -> ScoredCandidate | None:
        """A candidate on all validation rows; `None` where the budget does not allow it."""
        try:
            scored = await self._bench.validate(candidate, self._rows, self.say("validate", f"student tries {what}"))
        except BudgetSpent as spent:
            self._tell(f"{what}: not scored, {spent}")
            return None
        self._tell(
            f"{what}: log loss {scored.loss:.3f}, {scored.ms_per_text:.0f} ms and "
            f"{scored.output_tokens:.1f} tokens a text"
        )
        return scored

    async def attempt(self, candidate: Candidate, best: ScoredCandidate, what: str) -> ScoredCandidate | str:
        """A candidate in a race with the best so far."""
        try:
            return await self._bench.race(
                candidate,
                best,
                self._rows,
                level=self._plan.race_level,
                on_progress=self.say("validate", f"student tries {what}"),
            )
        except BudgetSpent as spent:
            return f"not scored, {spent}"

    async def _incumbent(self, state: DistillationState) -> ScoredCandidate | None:
        incumbent = state.get("incumbent")
        if incumbent is None:
            return None
        bench = self._bench
        answer = await readable(
            bench.student,
            incumbent.answer_for(bench.fingerprint),
            bench.scorer,
            self._run,
            bench.spending,
            node="validate",
        )
        candidate = Candidate(rules=incumbent.rules, answer=answer)
        return await self.score(candidate, f"the incumbent {incumbent.id}")

    def _edited(
        self,
        candidate: Candidate,
        proposal: Proposal,
        train: ExampleSet,
        screen: Screen,
        count: Callable[[str], int],
    ) -> Candidate:
        task = self._bench.task
        rules, lines = apply_edits(
            candidate.rules,
            proposal.edits,
            editable=proposal.editable,
            labels=(proposal.expected, proposal.predicted),
            screen=screen,
            sources=[task.render(row.input) for row in train if row.id in proposal.examples],
        )
        kept, gone = fit_to_budget(task, rules, candidate.answer, self._plan, count)
        lines += [f"{rule.id} goes, since the prompt has no room for it" for rule in gone]
        for line in lines:
            self._tell(f"{proposal.name}: {line}")
        return candidate.having(kept)

    def _at_ceiling(self, scored: ScoredCandidate) -> bool:
        labels, ceiling = self._bench.task.label_names, self._plan.ceiling
        counts = confusion_tables(gold_labels(self._rows), scored.predictions, labels).sum(axis=0)
        return ceiling is not None and float(macro_f1(counts)) >= ceiling


async def _ways_to_answer(
    task: Task,
    plan: Plan,
    student: BaseChatModel,
    teacher: Teacher,
    rows: ExampleSet,
    run: RunStore,
    spending: Spending,
    log: list[str],
) -> tuple[list[AnswerFormat], Scorer]:
    """The answer forms to try, and how the student's answers can be read."""
    proposed: list[dict[str, str]] = []
    if "teacher" in plan.answer_forms:
        answer = await propose_words(teacher, task)
        if isinstance(answer, Failure):
            log.append(f"validate: the teacher proposed no answer words: {answer.message}")
        else:
            proposed = answer
    # The tokenizer may have to load the model.
    formats = await asyncio.to_thread(
        answer_formats,
        task,
        plan.answer_forms,
        proposed=proposed,
        token_ids=tokenizer_of(student),
        most_labels=most_labels(student),
    )
    prompts = [(compile_prompt(task, (), answer), answer) for answer in formats]
    probe = await probed(student, prompts, task.render(rows[0].input), run, spending)
    formats = [form.model_copy(update={"thinking_tokens": probe.thinking_tokens}) for form in formats]
    formats = [await readable(student, form, probe.scorer, run, spending, node="validate") for form in formats]
    if probe.thinking_tokens:
        log.append(f"validate: the student gets {probe.thinking_tokens} tokens to think")
    return formats, probe.scorer


def _progress(runtime: Runtime[DistillationContext], node: str, step: str) -> OnProgress:
    return lambda done, total: runtime.stream_writer(
        Progress(node=node, step=step, done=done, total=total).model_dump()
    )


def _tried(searches: dict[str, list[ScoredCandidate]]) -> list[str]:
    """What each way of answering was worth and cost, where there was a choice."""
    return [
        f"answers tried {what}: "
        + "; ".join(
            f"{described(one.candidate.answer)} log loss {one.loss:.3f}, {one.ms_per_text:.0f} ms, "
            f"{one.output_tokens:.1f} tokens"
            for one in tried
        )
        for what, tried in searches.items()
        if len(tried) > 1
    ]
