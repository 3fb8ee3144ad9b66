"""The hill climb over rules: what it tries, in which order."""

from __future__ import annotations

from langchain_pld import adistill
from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.progress import Progress
from langchain_pld.distillation.search.candidates import Candidate, RowScore, ScoredCandidate
from langchain_pld.distillation.search.hill_climbing import SearchSpace, climb
from langchain_pld.rules import Rule
from tests.distillation.scenarios import PLAN, TASK, rows, student_script, teacher_script
from tests.fakes import FakeChatModel

GOLD = ("amber", "violet")


def rule(name: str, label: str, support: int = 1) -> Rule:
    return Rule(id=name, label=label, condition=f"If it is about {name}", sources=(), support=support)


def scored(rules: tuple[Rule, ...], loss: float) -> ScoredCandidate:
    row = RowScore(label="amber", log_probabilities={"amber": -0.5, "violet": -1.0}, latency_ms=1.0)
    return ScoredCandidate(
        candidate=Candidate(rules=rules, answer=AnswerFormat.letters(TASK)),
        prompt="",
        rows=(row, row),
        fit=None,
        probabilities=(None, None),
        losses=(loss, loss),
    )


async def climb_with(
    start: ScoredCandidate, space: SearchSpace, trials: int, change: float
) -> tuple[ScoredCandidate, list[str]]:
    """The best prompt and the moves tried, each of which changes the loss as said."""
    moves: list[str] = []

    async def race(candidate: Candidate, best: ScoredCandidate, name: str) -> ScoredCandidate:
        moves.append(name)
        return scored(candidate.rules, best.loss + change)

    return await climb(start, space, trials, race), moves


async def test_additions_come_from_all_labels_in_turn_whether_they_help_or_not() -> None:
    support = {"amber": 9, "violet": 4}
    pool = tuple(rule(f"{label}-{n}", label, support[label] - n) for label in GOLD for n in range(4))
    for change in (-0.1, 0.1):
        _, tried = await climb_with(scored((), 1.0), SearchSpace(pool=pool), 8, change)
        added = [what.partition("(")[2].rstrip(")") for what in tried if what.startswith("with rule")]
        assert set(added[:2]) == set(GOLD), tried
        assert set(added[2:4]) == set(GOLD) or change < 0
    best, _ = await climb_with(scored((rule("one", "amber"),), 1.0), SearchSpace(pool=pool), 3, -0.1)
    assert {one.label for one in best.candidate.rules} == set(GOLD)


async def test_a_run_tells_each_try_with_its_score_and_what_became_of_it() -> None:
    seen: list[Progress] = []
    await adistill(
        TASK,
        train=rows("train", 12),
        validation=rows("validation", 60),
        teacher=FakeChatModel(script=teacher_script),
        student=FakeChatModel(script=student_script),
        effort=PLAN,
        on_progress=seen.append,
    )
    told = [one.note for one in seen if one.node == "validate" and one.note]
    assert any("zero-shot" in note and "log loss" in note for note in told)
    (tried,) = [note for note in told if "without rule" in note]
    assert "taken, log loss" in tried or "stopped after" in tried
    # A step tells its beginning, so that its time is its own.
    first = next(one for one in seen if "zero-shot" in one.step)
    assert (first.done, first.total) == (0, 60)


def test_a_plan_tells_in_plain_words_what_it_does_and_nothing_of_what_it_does_not() -> None:
    light = PLANS["light"].describe()
    assert "the teacher explains up to 60 examples, picked at random; writes up to 2 rules a label" in light
    assert "in at most 1 pass;" in light
    assert "up to 4 changes of the rules, and answers with the labels' names, the task's own words;" in light
    assert "small label" not in light
    assert "few" not in light
    made_up = PLANS["light"].model_copy(update={"synthetic_per_small_label": 3}).describe()
    assert "makes up 3 more for each label that has few" in made_up
