"""The hill climb over rules: what it tries, in which order."""

from __future__ import annotations

import pytest

from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.search.candidates import Candidate, RowScore, ScoredCandidate
from langchain_pld.distillation.search.hill_climbing import SearchSpace, climb, harm_by_label
from langchain_pld.rules import Rule
from tests.distillation.scenarios import TASK, distil

LABELS = ("amber", "violet")


def rule(name: str, label: str, support: int = 1) -> Rule:
    return Rule(id=name, label=label, condition=f"If it is about {name}", sources=(), support=support)


def scored(rules: tuple[Rule, ...], loss: float, amber: float = -0.5) -> ScoredCandidate:
    row = RowScore(label="amber", log_probabilities={"amber": amber, "violet": -1.0}, latency_ms=1.0)
    return ScoredCandidate(
        candidate=Candidate(rules=rules, answer=AnswerFormat.letters(TASK)),
        prompt="",
        rows=(row, row),
        fit=None,
        probabilities=(None, None),
        losses=(loss, loss),
    )


async def climb_with(
    rules: tuple[Rule, ...], space: SearchSpace, trials: int, change: float
) -> tuple[ScoredCandidate, list[str]]:
    """The best prompt and the moves tried, each of which changes the loss as said."""
    moves: list[str] = []

    async def race(candidate: Candidate, best: ScoredCandidate, name: str) -> ScoredCandidate:
        moves.append(name)
        return scored(candidate.rules, best.loss + change)

    return await climb(scored(rules, 1.0), space, trials, race), moves


@pytest.mark.parametrize("change", [-0.1, 0.1])
async def test_additions_come_from_all_labels_in_turn_whether_they_help_or_not(change: float) -> None:
    support = {"amber": 9, "violet": 4}
    pool = tuple(rule(f"{label}-{n}", label, support[label] - n) for label in LABELS for n in range(4))
    _, moves = await climb_with((), SearchSpace(pool=pool), 8, change)
    added = [move.partition("(")[2].rstrip(")") for move in moves if move.startswith("with rule")]
    assert set(added[:2]) == set(LABELS), moves
    assert set(added[2:4]) == set(LABELS) or change < 0
    if change < 0:
        best, _ = await climb_with((rule("one", "amber"),), SearchSpace(pool=pool), 3, change)
        assert {one.label for one in best.candidate.rules} == set(LABELS)


async def test_the_rule_of_the_most_harmful_label_goes_first_and_its_effect_is_kept_where_it_stays() -> None:
    rules = (rule("one", "amber"), rule("two", "violet"))
    best, moves = await climb_with(rules, SearchSpace(rules, harm={"amber": -0.2, "violet": 0.3}), 1, 0.1)
    assert moves == ["without rule two (violet)"]
    assert [one.effect for one in best.candidate.rules] == [None, pytest.approx(0.1)]


async def test_drafts_and_other_orders_are_tried_last_and_no_move_twice() -> None:
    rules = tuple(rule(name, "amber") for name in ("one", "two", "three"))
    space = SearchSpace(rules, drafts={"one": [rule("other", "amber")]}, reorder=True)
    _, moves = await climb_with(rules, space, 20, 0.1)
    assert [move.split()[0] for move in moves] == ["without"] * 3 + ["draft", "rules", "rules"]


def test_a_label_that_gains_on_rows_of_other_labels_does_harm() -> None:
    assert harm_by_label(scored((), 1.0, amber=-0.2), scored((), 1.0, amber=-0.5), ("violet", "violet")) == {
        "amber": pytest.approx(0.3),
        "violet": 0.0,
    }


async def test_a_run_reports_each_trial_with_its_score_and_outcome() -> None:
    events: list[Progress] = []
    await distil(on_progress=events.append)
    notes = [event.note for event in events if event.node == "validate" and event.note]
    assert any("zero-shot" in note and "log loss" in note for note in notes)
    (trial,) = [note for note in notes if "without rule" in note]
    assert "taken, log loss" in trial or "stopped after" in trial
    # A step reports its beginning, so that its time is its own.
    first = next(event for event in events if "zero-shot" in event.step)
    assert (first.done, first.total) == (0, 60)
