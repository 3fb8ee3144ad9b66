"""Which answer words are tried, and which are taken."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langgraph.store.memory import InMemoryStore

from langchain_pld import Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.distillation.plan import PLANS
from langchain_pld.distillation.run.run import Run
from langchain_pld.distillation.run.store import RunStore
from langchain_pld.distillation.search.answer_formats import (
    FAMILIAR_WORDS,
    answer_formats,
    choose_format,
    propose_words,
    score_formats,
)
from langchain_pld.distillation.search.candidates import Candidate, RowScore, ScoredCandidate
from langchain_pld.student.first_tokens import first_tokens_differ
from tests.distillation.scenarios import PLAN, distil, student
from tests.fakes import FakeChatModel, scored, text_of

NLI = Task(
    name="nli",
    instructions="Does the clause follow?",
    labels=[{"name": "entailment"}, {"name": "contradiction"}, {"name": "not_mentioned"}],
    verbalizers=[{"entailment": "follows", "contradiction": "denies", "not_mentioned": "silent"}],
)
ALL = PLANS["heavy"].answer_forms


def codes(formats: Sequence[AnswerFormat]) -> list[str]:
    return [f"{one.form}: {' '.join(one.codes.values())}" for one in formats]


def many(count: int, stem: str = "l{}") -> Task:
    return Task(name="m", instructions="i", labels=[{"name": stem.format(n)} for n in range(count)])


def test_a_light_plan_tries_names_and_the_tasks_own_words() -> None:
    assert codes(answer_formats(NLI, PLANS["light"].answer_forms)) == [
        "words: entailment contradiction not_mentioned",
        "words: follows denies silent",
    ]


def test_a_heavy_plan_tries_familiar_and_proposed_words_and_letters_too() -> None:
    proposed = [dict(zip(NLI.label_names, ("true", "false", "missing"), strict=True))]
    assert codes(answer_formats(NLI, ALL, proposed=proposed)) == [
        "words: entailment contradiction not_mentioned",
        "words: follows denies silent",
        "words: yes no unstated",
        "words: yes no unknown",
        "words: true false missing",
        "letters: A B C",
    ]


@pytest.mark.parametrize("words", FAMILIAR_WORDS, ids=lambda words: "-".join([*words, *words.values()]))
def test_familiar_words_can_be_told_apart(words: dict[str, str]) -> None:
    assert first_tokens_differ(AnswerFormat(codes=words))


def test_familiar_words_are_found_whatever_the_spelling_of_the_labels() -> None:
    task = Task(name="t", instructions="i", labels=[{"name": "Not-Entailment"}, {"name": "Entailment"}])
    assert codes(answer_formats(task, ("familiar",))) == ["words: no yes"]


def test_words_that_begin_alike_give_way_to_letters() -> None:
    task = Task(name="t", instructions="i", labels=[{"name": "non_toxic"}, {"name": "nonsense"}])
    assert codes(answer_formats(task, ("names", "task"))) == ["letters: A B"]


def test_the_tokenizer_decides_where_there_is_one() -> None:
    def whole_words(text: str) -> list[int]:
        return [hash(text)]

    task = Task(name="t", instructions="i", labels=[{"name": "non_toxic"}, {"name": "nonsense"}])
    assert codes(answer_formats(task, ("names",), token_ids=whole_words)) == ["words: non_toxic nonsense"]


def test_a_label_name_that_could_not_be_read_back_is_no_answer() -> None:
    task = Task(name="t", instructions="i", labels=[{"name": "wow!"}, {"name": "meh"}])
    assert codes(answer_formats(task, ("names",))) == ["letters: A B"]


def test_more_labels_than_an_answer_shows_are_asked_in_two_stages() -> None:
    assert [one.form for one in answer_formats(many(77), ALL)] == ["two_stage"]
    # A student that shows enough alternatives answers at once, where the words begin differently.
    assert [one.form for one in answer_formats(many(77, "{0:03}x"), ("names",), most_labels=198)] == ["words"]
    assert [one.form for one in answer_formats(many(77, "card_{}"), ("names",), most_labels=198)] == ["two_stage"]


def scored_candidate(losses: Sequence[float], tokens: int, answer: AnswerFormat) -> ScoredCandidate:
    row = RowScore(label="a", log_probabilities=None, latency_ms=1.0, output_tokens=tokens)
    return ScoredCandidate(
        candidate=Candidate(answer=answer),
        prompt="",
        rows=(row,) * len(losses),
        fit=None,
        probabilities=(None,) * len(losses),
        losses=tuple(losses),
    )


WORDS, YES, EVIDENCE = (
    AnswerFormat.words(NLI),
    AnswerFormat.words(NLI, NLI.verbalizers[0]),
    AnswerFormat.words(NLI, form="evidence"),
)


def test_the_lowest_loss_wins_among_equally_cheap_answers() -> None:
    taken = choose_format([scored_candidate([0.9, 1.1, 1.0], 1, WORDS), scored_candidate([0.8, 1.0, 0.9], 1, YES)])
    assert taken.candidate.answer == YES


@pytest.mark.parametrize(
    ("losses", "winner"),
    [
        ([0.1, 1.5, 0.6, 1.4], WORDS),  # a little better on average, worse on some rows: not worth its tokens
        ([0.4, 0.5, 0.4, 0.5], EVIDENCE),
    ],
)
def test_a_dearer_answer_must_be_better_by_more_than_its_standard_error(
    losses: list[float], winner: AnswerFormat
) -> None:
    taken = choose_format([scored_candidate([0.9, 1.0, 0.9, 1.0], 1, WORDS), scored_candidate(losses, 8, EVIDENCE)])
    assert taken.candidate.answer == winner


async def test_evidence_is_tried_with_the_best_words() -> None:
    async def score(candidate: Candidate, name: str) -> ScoredCandidate:
        names.append(name)
        good = candidate.answer.codes == YES.codes
        return scored_candidate([0.1, 0.2] if good else [1.0, 1.1], 1, candidate.answer)

    names: list[str] = []
    results = await score_formats((), [WORDS, YES], score, evidence=True, name="zero-shot")
    assert names[-1] == "zero-shot evidence (follows, denies, silent)"
    assert len(results) == 3


async def test_proposals_that_are_no_plain_words_are_dropped() -> None:
    sets = [["yes", "no", "silent"], ["yes", "no"], ["y e s", "no", "silent"], ["<b>", "no", "silent"]]
    model = FakeChatModel(script=lambda _: AIMessage(json.dumps({"sets": sets})))
    run = await Run.open(
        "validate",
        task=NLI,
        plan=PLANS["light"],
        store=RunStore(InMemoryStore(), "run"),
        student=model,
        teacher_model=model,
    )
    assert await propose_words(run) == [dict(zip(NLI.label_names, sets[0], strict=True))]


def only_yes_or_no(messages: list[BaseMessage]) -> AIMessage:
    """Understands the subject when it may answer yes or no, and nothing when it must name a team."""
    system = str(messages[0].text)
    if "yes (amber)" not in system:
        return scored({"amber": 0.6, "violet": 0.4})
    return scored({"yes": 0.95, "no": 0.05} if "invoice" in text_of(messages) else {"yes": 0.05, "no": 0.95})


async def test_words_that_the_student_understands_are_found_for_both_prompts_and_kept_in_the_artifact() -> None:
    words = {"amber": "yes", "violet": "no"}
    task = Task(
        name="colours",
        instructions="Decide which team gets the note.",
        labels=[{"name": "amber"}, {"name": "violet"}],
        verbalizers=[words],
    )
    artifact = await distil(
        task, test=None, student=student(script=only_yes_or_no), effort=PLAN.model_copy(update={"trials": 0})
    )
    assert artifact.answer.codes == words
    # The plain prompt found them as well, so that the rules are credited with nothing.
    assert artifact.finish_reason == "no_gain"
    notes = [note for note in artifact.notes if note.startswith("answers tried")]
    assert [note.split(":")[0] for note in notes] == ["answers tried without rules", "answers tried with all rules"]
    assert "words (yes, no) log loss 0.0" in notes[0]
