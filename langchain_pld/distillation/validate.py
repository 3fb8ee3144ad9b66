"""validate: the student decides which prompt is shipped.

In: merged rules. Out: the artifact. The zero-shot prompt and the rules are scored on the validation rows with the same
search of the answer form and the same calibration; rules that do harm are taken out; the distilled prompt replaces the
zero-shot one only when a paired comparison finds it better. The test rows are read once, after the choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from langgraph.runtime import Runtime

from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import ScoreCard
from langchain_pld.distillation.candidates import Candidate, ScoredCandidate, StudentBench
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.ledger import merge_ledgers
from langchain_pld.distillation.node import Node
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import RunStore
from langchain_pld.distillation.selection import eliminate, strongest_first
from langchain_pld.distillation.state import DistillationState
from langchain_pld.evaluation.baselines import majority_card, ngram_card
from langchain_pld.evaluation.comparison import Comparison, compare
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.student.binding import fingerprint_of
from langchain_pld.student.calibration import MINIMUM_ROWS
from langchain_pld.student.probe import probe_scorer
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.student.scoring import first_tokens_differ
from langchain_pld.task import Task

__all__ = ["answer_formats", "validate_node"]

Say = Callable[[str, str], Callable[[int, int], None]]


def validate_node(models: RunModels) -> Node:
    """Build the node."""

    async def validate(state: DistillationState, runtime: Runtime[DistillationContext]) -> dict[str, Any]:
        def say(node: str, step: str) -> Callable[[int, int], None]:
            return lambda done, total: runtime.stream_writer(
                Progress(node=node, step=step, done=done, total=total).model_dump()
            )

        run = RunStore(runtime.store, state["run_id"])
        task, plan, seed = state["task"], state["plan"], settings(runtime).seed
        rows = await run.required("validation")
        student = await models.student_for(runtime)
        formats = answer_formats(task)
        prompt = compile_prompt(task, (), formats[0])
        scorer = await probe_scorer(student, prompt, formats[0], task.render(rows[0].input))
        fingerprint = await asyncio.to_thread(fingerprint_of, student)
        bench = StudentBench(task, student, fingerprint, scorer, run, seed)
        log = [f"validate: answers of {fingerprint.spec} are read by {scorer}"]

        async def score(candidate: Candidate, what: str) -> ScoredCandidate:
            scored = await bench.validate(candidate, rows, say("validate", f"student tries {what}"))
            log.append(f"validate: {what}: log loss {scored.loss:.3f}")
            return scored

        # The incumbent has the same choice of answer forms and the same calibration: a fair fight.
        zero_shot = await _best_of([Candidate((), answer) for answer in formats], score, "zero-shot")
        rules = strongest_first(state["rules"])
        distilled = await _best_of([Candidate(rules, answer) for answer in formats], score, "all rules")
        gold = gold_labels(rows)
        distilled, steps = await eliminate(distilled, zero_shot, gold, plan.eliminations, score)
        comparison = compare(
            gold,
            distilled.predictions,
            zero_shot.predictions,
            task.label_names,
            [row.group for row in rows],
            level=plan.replace_level,
            seed=seed,
        )
        winner, finish_reason, reason = _choose(distilled, zero_shot, comparison)
        scores = [
            *bench.cards(zero_shot, rows, name="zero-shot", role="validation"),
            *bench.cards(distilled, rows, name="distilled", role="validation"),
            *await _test_cards(bench, run, zero_shot, distilled, say),
        ]
        ledger = [bench.ledger_line("validate")]
        artifact = bench.artifact(winner.candidate, winner.calibration).model_copy(
            update={
                "teacher": await asyncio.to_thread(fingerprint_of, await models.teacher_for(runtime)),
                "data": state["data"],
                "scores": tuple(scores),
                "finish_reason": finish_reason,
                "ledger": tuple(merge_ledgers(state["ledger"], ledger)),
                "seed": seed,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "notes": (reason, *_notes(winner)),
            }
        )
        runtime.stream_writer(Progress(node="validate", step="done", done=1, total=1, note=reason).model_dump())
        log += [f"validate: {line}" for line in (*steps, reason)]
        return {"artifact": artifact, "finish_reason": finish_reason, "log": log, "ledger": ledger}

    return validate


def answer_formats(task: Task) -> list[AnswerFormat]:
    """The answer forms to try: label names and the task's verbalizers; letters where none can be told apart."""
    words = [AnswerFormat.words(task), *(AnswerFormat.words(task, verbalizer) for verbalizer in task.verbalizers)]
    return [answer for answer in words if first_tokens_differ(answer)] or [AnswerFormat.letters(task)]


async def _best_of(
    candidates: list[Candidate], score: Callable[[Candidate, str], Awaitable[ScoredCandidate]], what: str
) -> ScoredCandidate:
    """The candidate with the lowest log loss; the first of equals."""
    scored = [
        await score(candidate, f"{what} ({', '.join(candidate.answer.codes.values())})") for candidate in candidates
    ]
    return min(scored, key=lambda one: one.loss)


def _choose(
    distilled: ScoredCandidate, zero_shot: ScoredCandidate, comparison: Comparison
) -> tuple[ScoredCandidate, str, str]:
    """The prompt to ship, the finish reason and the sentence that says why."""
    difference = comparison.difference
    figures = (
        f"macro-F1 on {comparison.rows} validation rows {difference.value:+.3f}, "
        f"{difference.level:.0%} interval {difference.low:+.3f} to {difference.high:+.3f}"
    )
    if distilled.candidate.rules and comparison.better:
        return distilled, "converged", f"the distilled prompt is better than zero-shot: {figures}"
    return zero_shot, "no_gain", f"no detectable gain, the zero-shot prompt stays: {figures}"


async def _test_cards(
    bench: StudentBench, run: RunStore, zero_shot: ScoredCandidate, distilled: ScoredCandidate, say: Say
) -> list[ScoreCard]:
    """The only place where test rows are read: both prompts beside the plain baselines."""
    rows = await run.examples("test")
    if rows is None:
        return []
    train = await run.required("train")
    baselines = [
        majority_card(bench.task, train, rows, role="test", seed=bench.seed),
        ngram_card(bench.task, train, rows, role="test", seed=bench.seed),
    ]
    cards = [card for card in baselines if card is not None]
    for name, scored in {"zero-shot": zero_shot, "distilled": distilled}.items():
        scores = await bench.score(scored.candidate, rows, "test", say("test", f"student reads the test rows, {name}"))
        cards += bench.cards_of(scored, scores, rows, name=name, role="test")
    return cards


def _notes(winner: ScoredCandidate) -> tuple[str, ...]:
    if winner.fit is None:
        return (f"not calibrated: fewer than {MINIMUM_ROWS} validation rows have a scored answer",)
    return winner.fit.warnings
