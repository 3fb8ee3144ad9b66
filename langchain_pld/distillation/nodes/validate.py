"""validate: the student decides which prompt is best, and whether the run goes on.

In: merged rules, later proposed edits. Out: the best prompt so far, at the end the artifact. Zero-shot prompt and rules
are scored on the validation rows with the same choice of answer formats and the same calibration. From the better one,
single steps are taken while the log loss falls; in later passes each proposal is a step. At the end the best prompt
replaces the old one only if a paired comparison finds it better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import FinishReason
from langchain_pld.distillation.nodes.overview import validation_figures
from langchain_pld.distillation.rules.edits import Proposal, apply_edits
from langchain_pld.distillation.rules.prompt_size import fit_to_budget, token_counter
from langchain_pld.distillation.rules.screening import Screen
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.spending import BudgetSpent
from langchain_pld.distillation.search.answer_formats import (
    choose_format,
    describe,
    propose_words,
    score_formats,
    student_formats,
)
from langchain_pld.distillation.search.candidates import Candidate, ScoredCandidate
from langchain_pld.distillation.search.hill_climbing import SearchSpace, climb, harm_by_label, strongest_first
from langchain_pld.distillation.search.promotion import Contest, promote, unmeasured
from langchain_pld.distillation.search.racing import race, stratified_order
from langchain_pld.distillation.search.scorer import StudentScorer
from langchain_pld.distillation.search.student_probes import learn_tokens, prepare_formats
from langchain_pld.distillation.state import DistillationState
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.evaluation.metrics import confusion_tables, macro_f1
from langchain_pld.examples import ExampleSet
from langchain_pld.rules import Rule
from langchain_pld.student.providers import fingerprint_of

__all__ = ["validate"]


async def validate(state: DistillationState, run: Run) -> dict[str, Any]:
    """The node."""
    rows = stratified_order(await run.store.require("validation"), run.seed)
    fingerprint = await run.student_fingerprint()
    formats: list[AnswerFormat] = []
    scorer = state.get("scorer")
    if scorer is None:
        proposed = await propose_words(run) if "teacher" in run.plan.answer_forms else []
        formats = await student_formats(run, run.plan.answer_forms, proposed)
        formats, scorer = await prepare_formats(run, formats, run.task.render(rows[0].input))
        run.note(f"answers of {fingerprint.spec} are read by {scorer}")
    student_scorer = StudentScorer(run, fingerprint, scorer)
    search_pass = _Pass(student_scorer, rows)
    contest, improved = await (search_pass.first(state, formats) if formats else search_pass.later(state))
    tried = [*state.get("tried", ()), *search_pass.tried]
    passes = state.get("round", 0)
    update: dict[str, Any] = {"tried": tried, "scorer": scorer, "round": passes + 1, "proposals": []}
    if contest is not None:
        update |= {"zero_shot": contest.zero_shot.candidate, "champion": contest.champion.candidate}
        if contest.all_rules is not None:
            update["all_rules"] = contest.all_rules.candidate
        prompts = {"zero-shot": contest.zero_shot, "incumbent": contest.incumbent, "best so far": contest.champion}
        update["measured"] = validation_figures(prompts, rows, run.task.label_names)
    ended = search_pass.end(contest, improved, passes)
    if ended is None:
        return update
    assert run.teacher_model is not None
    origin = {
        "teacher": await asyncio.to_thread(fingerprint_of, run.teacher_model),
        "data": state["data"],
        "parent": state["incumbent"].id if state.get("incumbent") else None,
    }
    if contest is None:
        artifact = unmeasured(student_scorer, formats[0] if formats else state["champion"].answer, origin)
    else:
        artifact = await promote(contest, student_scorer, rows, ended=ended, origin=origin, trials=tried)
    run.announce(artifact.notes[0])
    return {**update, "artifact": artifact, "finish_reason": artifact.finish_reason}


class _Pass:
    """One pass of the node over the validation rows, in `stratified_order`."""

    def __init__(self, student_scorer: StudentScorer, rows: ExampleSet) -> None:
        self.tried: list[str] = []
        """The figures of each answer format."""
        self._scorer = student_scorer
        self._run = student_scorer.run
        self._plan = student_scorer.run.plan
        self._rows = rows

    async def first(self, state: DistillationState, formats: list[AnswerFormat]) -> tuple[Contest | None, bool]:
        """Zero-shot against all rules, then single steps from the better one; `None` if the budget ran out."""
        plan = self._plan
        # For a fair comparison, the prompt without rules has the same answer formats and calibration.
        zero_shot = await self._best_format((), formats, "zero-shot", "without rules")
        if zero_shot is None:
            return None, False
        incumbent = await self._incumbent(state)
        if self._at_ceiling(zero_shot):
            return Contest(zero_shot, zero_shot, incumbent), False
        rules = strongest_first(state["rules"])
        all_rules = await self._best_format(rules, formats, "all rules", "with all rules") if rules else None
        start, harm = zero_shot, {}
        if all_rules is not None:
            start = min(all_rules, zero_shot, key=lambda scored: scored.loss)
            harm = harm_by_label(all_rules, zero_shot, gold_labels(self._rows))
        pool = tuple(state.get("pool", ()))
        space = SearchSpace(rules, state.get("drafts", {}), pool, reorder=plan.orders, harm=harm)
        champion = await climb(start, space, plan.trials, self._race)
        return Contest(zero_shot, champion, incumbent, all_rules), True

    async def later(self, state: DistillationState) -> tuple[Contest | None, bool]:
        """The best prompt so far with each proposal that improves it; or the rules that a person accepted."""
        # Scored before, so these come from the Store.
        zero_shot = await self.score(state["zero_shot"], "zero-shot")
        incumbent = await self._incumbent(state)
        best = state["champion"]
        if "reviewed" in state:
            # Without rules it is the zero-shot prompt, which has its own answer format.
            accepted = tuple(state["rules"])
            best = Candidate(rules=accepted, answer=state["artifact"].answer) if accepted else state["zero_shot"]
        champion = await self.score(best, "reviewed rules" if "reviewed" in state else "the best rules so far")
        if zero_shot is None or champion is None:
            return None, False
        if "reviewed" in state:
            return Contest(zero_shot, champion, incumbent, reviewed=True), False
        train = await self._run.store.rows_for_teacher()
        screen = await asyncio.to_thread(Screen.of, self._run.task, train)
        count = await asyncio.to_thread(token_counter, self._run.student)
        improved = False
        for proposal in state.get("proposals", ()):
            candidate = await asyncio.to_thread(self._edit, champion.candidate, proposal, train, screen, count)
            if candidate == champion.candidate:
                continue
            scored = await self._race(candidate, champion, proposal.name)
            if scored is not None and scored.loss < champion.loss:
                champion, improved = scored, True
        all_rules = await self.score(state["all_rules"], "all rules") if "all_rules" in state else None
        return Contest(zero_shot, champion, incumbent, all_rules), improved

    def end(self, contest: Contest | None, improved: bool, passes: int) -> FinishReason | None:
        """Why the search is over, or `None` if the rules go back to critique."""
        if contest is None or self._run.spending.stopped:
            return "budget"
        if contest.reviewed:
            return "reviewed"
        if self._at_ceiling(contest.champion):
            return "ceiling"
        return "converged" if not improved or passes >= self._plan.rounds else None

    async def score(self, candidate: Candidate, what: str) -> ScoredCandidate | None:
        """Score a candidate on all validation rows; `None` if the budget ran out."""
        try:
            scored = await self._scorer.validate(candidate, self._rows, self._run.progress(f"student tries {what}"))
        except BudgetSpent as spent:
            self._run.announce(f"{what}: not scored, {spent}")
            return None
        self._run.announce(
            f"{what}: log loss {scored.loss:.3f}, {scored.ms_per_text:.0f} ms and "
            f"{scored.output_tokens:.1f} tokens a text"
        )
        return scored

    async def _race(self, candidate: Candidate, best: ScoredCandidate, name: str) -> ScoredCandidate | None:
        return await race(self._scorer, candidate, best, self._rows, name)

    async def _best_format(
        self, rules: tuple[Rule, ...], formats: list[AnswerFormat], name: str, what: str
    ) -> ScoredCandidate | None:
        """The rules in their best answer format; `None` if the budget ran out."""
        evidence = "evidence" in self._plan.answer_forms
        scored = await score_formats(rules, formats, self.score, evidence=evidence, name=name)
        if len(scored) > 1:
            figures = (
                f"{describe(one.candidate.answer)} log loss {one.loss:.3f}, {one.ms_per_text:.0f} ms, "
                f"{one.output_tokens:.1f} tokens"
                for one in scored
            )
            self.tried.append(f"answers tried {what}: {'; '.join(figures)}")
        return choose_format(scored) if scored else None

    async def _incumbent(self, state: DistillationState) -> ScoredCandidate | None:
        incumbent = state.get("incumbent")
        if incumbent is None:
            return None
        answer = await learn_tokens(self._run, incumbent.answer_for(self._scorer.fingerprint), self._scorer.scorer)
        candidate = Candidate(rules=incumbent.rules, answer=answer)
        return await self.score(candidate, f"the incumbent {incumbent.id}")

    def _edit(
        self,
        candidate: Candidate,
        proposal: Proposal,
        train: ExampleSet,
        screen: Screen,
        count: Callable[[str], int],
    ) -> Candidate:
        task = self._run.task
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
            self._run.announce(f"{proposal.name}: {line}")
        return candidate.with_rules(kept)

    def _at_ceiling(self, scored: ScoredCandidate) -> bool:
        labels, ceiling = self._run.task.label_names, self._plan.ceiling
        counts = confusion_tables(gold_labels(self._rows), scored.predictions, labels).sum(axis=0)
        return ceiling is not None and float(macro_f1(counts)) >= ceiling
