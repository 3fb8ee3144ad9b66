"""validate: the student decides which prompt is shipped.

In: merged rules. Out: the artifact. The zero-shot prompt and the rules are scored on the validation rows with the same
search of the answer form and the same calibration; rules that do harm are taken out; the distilled prompt replaces the
zero-shot one only when a paired comparison finds it better. The test rows are read once, after the choice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from langgraph.runtime import Runtime

from langchain_pld.artifact import Gate, ScoreCard
from langchain_pld.distillation.answer_search import answer_formats, described, propose_words, search
from langchain_pld.distillation.candidates import Candidate, ScoredCandidate, StudentBench
from langchain_pld.distillation.context import DistillationContext, RunModels, settings
from langchain_pld.distillation.ledger import merge_ledgers
from langchain_pld.distillation.node import Node
from langchain_pld.distillation.plan import Plan
from langchain_pld.distillation.progress import Progress
from langchain_pld.distillation.roles import RunStore
from langchain_pld.distillation.selection import eliminate, strongest_first
from langchain_pld.distillation.state import DistillationState
from langchain_pld.distillation.teacher import Teacher
from langchain_pld.errors import InputError
from langchain_pld.evaluation.baselines import majority_card, ngram_card
from langchain_pld.evaluation.comparison import Comparison, compare
from langchain_pld.evaluation.evaluate import gold_labels
from langchain_pld.examples import ExampleSet
from langchain_pld.student.binding import fingerprint_of, most_labels, tokenizer_of
from langchain_pld.student.calibration import MINIMUM_ROWS
from langchain_pld.student.gates import fit_gate
from langchain_pld.student.probe import probe_student
from langchain_pld.student.prompt import compile_prompt
from langchain_pld.task import Task
from langchain_pld.verdict import Failure

__all__ = ["validate_node"]

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
        teacher = Teacher(
            await models.teacher_for(runtime), node="validate", store=run.store, concurrency=plan.concurrency
        )
        log: list[str] = []
        proposed = await _proposed(teacher, task, plan, log)
        # The tokenizer may have to load the model.
        formats = await asyncio.to_thread(
            answer_formats,
            task,
            plan.answer_forms,
            proposed=proposed,
            token_ids=tokenizer_of(student),
            most_labels=most_labels(student),
        )
        prompt = compile_prompt(task, (), formats[0])
        probe = await probe_student(student, prompt, formats[0], task.render(rows[0].input))
        formats = [answer.model_copy(update={"thinking_tokens": probe.thinking_tokens}) for answer in formats]
        scorer = probe.scorer
        fingerprint = await asyncio.to_thread(fingerprint_of, student)
        bench = StudentBench(task, student, fingerprint, scorer, run, seed)
        room = f", with {probe.thinking_tokens} tokens to think" if probe.thinking_tokens else ""
        log.append(f"validate: answers of {fingerprint.spec} are read by {scorer}{room}")

        async def score(candidate: Candidate, what: str) -> ScoredCandidate:
            scored = await bench.validate(candidate, rows, say("validate", f"student tries {what}"))
            log.append(
                f"validate: {what}: log loss {scored.loss:.3f}, {scored.ms_per_text:.0f} ms and "
                f"{scored.output_tokens:.1f} tokens a text"
            )
            return scored

        # The incumbent has the same choice of answer forms and the same calibration: a fair fight.
        zero_shot, without = await search((), formats, plan.answer_forms, score, "zero-shot")
        rules = strongest_first(state["rules"])
        distilled, with_rules = await search(rules, formats, plan.answer_forms, score, "all rules")
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
        # What is called distilled is what is shipped; rules that lost are shown beside it under another name.
        prompts = {"zero-shot": zero_shot, "distilled" if winner is distilled else "rules, not shipped": distilled}
        scores = [
            card for name, one in prompts.items() for card in bench.cards(one, rows, name=name, role="validation")
        ]
        scores += await _test_cards(bench, run, prompts, say)
        ledger = [bench.ledger_line("validate"), *teacher.ledger]
        gate, gate_notes = _gate(winner, rows, task, plan.gate_alpha, seed)
        artifact = bench.artifact(winner.candidate, winner.calibration).model_copy(
            update={
                "teacher": await asyncio.to_thread(fingerprint_of, await models.teacher_for(runtime)),
                "data": state["data"],
                "gate": gate,
                "scores": tuple(scores),
                "finish_reason": finish_reason,
                "ledger": tuple(merge_ledgers(state["ledger"], ledger)),
                "seed": seed,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "notes": (reason, *_trials(without, with_rules), *_notes(winner), *gate_notes),
            }
        )
        runtime.stream_writer(Progress(node="validate", step="done", done=1, total=1, note=reason).model_dump())
        log += [f"validate: {line}" for line in (*steps, reason)]
        return {"artifact": artifact, "finish_reason": finish_reason, "log": log, "ledger": ledger}

    return validate


async def _proposed(teacher: Teacher, task: Task, plan: Plan, log: list[str]) -> list[dict[str, str]]:
    """Answer words from the teacher, where the plan wants them; a run does not end for want of them."""
    if "teacher" not in plan.answer_forms:
        return []
    proposed = await propose_words(teacher, task)
    if isinstance(proposed, Failure):
        log.append(f"validate: the teacher proposed no answer words: {proposed.message}")
        return []
    return proposed


def _trials(without: list[ScoredCandidate], with_rules: list[ScoredCandidate]) -> tuple[str, ...]:
    """What each way of answering was worth and cost, where there was a choice."""
    if len(without) < 2:
        return ()
    return tuple(
        f"answers tried {what}: "
        + "; ".join(
            f"{described(one.candidate.answer)} log loss {one.loss:.3f}, {one.ms_per_text:.0f} ms, "
            f"{one.output_tokens:.1f} tokens"
            for one in tried
        )
        for what, tried in {"without rules": without, "with all rules": with_rules}.items()
    )


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
    bench: StudentBench, run: RunStore, prompts: Mapping[str, ScoredCandidate], say: Say
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
    for name, scored in prompts.items():
        scores = await bench.score(scored.candidate, rows, "test", say("test", f"student reads the test rows, {name}"))
        cards += bench.cards_of(scored, scores, rows, name=name, role="test")
    return cards


def _notes(winner: ScoredCandidate) -> tuple[str, ...]:
    if winner.fit is None:
        return (f"not calibrated: fewer than {MINIMUM_ROWS} validation rows have a scored answer",)
    return winner.fit.warnings


def _gate(
    winner: ScoredCandidate, rows: ExampleSet, task: Task, alpha: float | None, seed: int
) -> tuple[Gate | None, tuple[str, ...]]:
    """The gate that was asked for; one that always abstains where there are too few rows for it."""
    if alpha is None:
        return None, ()
    held_out = iter(winner.fit.out_of_fold if winner.fit else ())
    probabilities = [None if row.log_probabilities is None else next(held_out, None) for row in winner.rows]
    groups = [row.group for row in rows]
    try:
        gate = fit_gate(probabilities, gold_labels(rows), task.label_names, alpha=alpha, groups=groups, seed=seed)
    except InputError as error:
        return Gate(alpha=alpha), (f"the gate always abstains: {error}",)
    if gate.threshold is None and not any(gate.label_thresholds.values()):
        return gate, (f"the gate always abstains: no threshold keeps the risk at or below {alpha:.0%}",)
    return gate, ()
