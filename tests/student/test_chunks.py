"""Long inputs: read whole in chunks, or refused."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda

from langchain_pld import Label, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.artifact import Calibration, DistilledPrompt, Gate, ModelFingerprint
from langchain_pld.errors import InputError
from langchain_pld.guardrail import Guard, GuardrailPolicy
from langchain_pld.student.chunks import LongInput, chunk_spans, estimated_tokens, mean_scores, most_severe
from langchain_pld.student.sanitize import clean_text
from langchain_pld.student.scoring import Scores
from langchain_pld.verdict import Failure, Verdict
from tests.fakes import FakeChatModel, scored, text_of
from tests.student.small_artifact import TASK, artifact

POSTS = Task(
    name="posts", instructions="Is it rude?", labels=[Label(name="rude"), Label(name="fine")], none_label="fine"
)
PIECES = st.sampled_from(
    ["word ", "A sentence. ", "\n", "x" * 40, "漢字の文。", "🙂", "e\u0301", "\ufdfa", "  ", "=>", "<<<"]
)


def chunk_classifier(
    script: Any, task: Task = POSTS, long_input: LongInput | None = None, **changes: Any
) -> PLDClassifier:
    """A classifier whose student has room for some 300 estimated tokens of text."""
    prompt = "Answer rude or fine."
    parts: dict[str, Any] = {
        "task": task,
        "system_prompt": prompt,
        "answer": AnswerFormat.words(task),
        "calibration": Calibration.identity(task.label_names),
        "student": ModelFingerprint(spec="fake-chat:fake", context_length=470),
    }
    return PLDClassifier(
        artifact=DistilledPrompt(**{**parts, **changes}),
        student=FakeChatModel(script=script),
        long_input=long_input or LongInput(),
    )


def rude_where(word: str) -> Any:
    def script(messages: Any) -> AIMessage:
        return scored({"rude": 0.9, "fine": 0.1} if word in text_of(messages) else {"rude": 0.2, "fine": 0.8})

    return script


@given(st.lists(PIECES, max_size=400).map("".join), st.integers(64, 400), st.floats(0, 0.5))
def test_chunks_cover_each_character_in_order_and_each_has_room(text: str, room: int, overlap: float) -> None:
    spans = chunk_spans(text, room=room, count=estimated_tokens, overlap=overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    assert all(estimated_tokens(text[start:end]) <= room for start, end in spans)
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        assert start < next_start <= end <= next_end


@given(st.text(max_size=2_000), st.integers(64, 300))
def test_chunks_of_any_text_are_read_by_a_count_that_is_not_monotone(text: str, room: int) -> None:
    def count(part: str) -> int:
        return len(part) + (len(part) % 7)

    spans = chunk_spans(text, room=room, count=count)
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    assert all(count(text[start:end]) <= room for start, end in spans)
    assert all(following[0] <= span[1] for span, following in itertools.pairwise(spans))


def test_chunks_are_cut_at_sentences() -> None:
    text = "The cat sat on the mat all day. " * 40
    spans = chunk_spans(text, room=100, count=estimated_tokens)
    assert all(text[:end].endswith(". ") for _, end in spans)
    assert all(start == 0 or text[start - 1] == " " for start, _ in spans)


def test_no_room_is_an_error() -> None:
    with pytest.raises(InputError, match="leaves 10 tokens"):
        chunk_spans("x", room=10, count=len)


@given(st.lists(PIECES, min_size=1, max_size=600).map("".join).filter(str.strip))
def test_what_the_student_reads_is_the_whole_text(text: str) -> None:
    read: list[str] = []

    def script(messages: Any) -> AIMessage:
        read.append(text_of(messages))
        return scored({"fine": 0.9, "rude": 0.1})

    verdict = chunk_classifier(script).invoke(text)
    if verdict.failure is not None:
        assert (verdict.failure.kind, read) == ("input", [])
        return
    assert verdict.chunks == len(read)
    whole, at = clean_text(text), 0
    for chunk in read:
        assert estimated_tokens(chunk) <= 300
        # Each chunk begins where, or before, the one before ended.
        found = next(start for start in range(at, -1, -1) if whole.startswith(chunk, start))
        at = max(at, found + len(chunk))
    assert at == len(whole)


async def test_one_bad_sentence_at_the_end_of_a_long_post_is_found() -> None:
    post = "All is well here. " * 200 + "You idiot!"
    asked = chunk_classifier(rude_where("idiot"))
    verdict = asked.invoke(post)
    assert (verdict.status, verdict.label, verdict.confidence) == ("decided", "rude", pytest.approx(0.9))
    assert verdict.chunks == verdict.usage.calls > 3
    assert await asked.ainvoke(post) == verdict
    clean = asked.invoke("All is well here. " * 200)
    assert (clean.label, clean.chunks) == ("fine", verdict.chunks)


def test_an_input_that_fits_is_read_once() -> None:
    verdict = chunk_classifier(rude_where("idiot")).invoke("You idiot!")
    assert (verdict.chunks, verdict.usage.calls) == (1, 1)


def test_the_mean_weighs_all_chunks() -> None:
    post = "All is well here. " * 200 + "You idiot!"
    verdict = chunk_classifier(rude_where("idiot"), long_input=LongInput(combine="mean")).invoke(post)
    assert (verdict.label, verdict.chunks > 3) == ("fine", True)


@pytest.mark.parametrize("action", [None, "fail"])
def test_a_long_input_with_fields_is_refused(action: Any) -> None:
    pairs = POSTS.model_copy(update={"fields": ("premise", "hypothesis")})
    asked = chunk_classifier(rude_where("x"), pairs, LongInput(action=action))
    verdict = asked.invoke({"premise": "word " * 900, "hypothesis": "x"})
    assert verdict.failure is not None
    assert verdict.failure.kind == "input"
    assert "leaves 300 for it" in verdict.failure.message
    assert asked.student.asked == []  # type: ignore[attr-defined]


def test_too_many_chunks_and_too_long_a_prompt_are_refused() -> None:
    for asked, expected in (
        (chunk_classifier(rude_where("x"), long_input=LongInput(max_chunks=2)), "the limit is 2"),
        (chunk_classifier(rude_where("x"), system_prompt="p" * 800), "leaves 0 tokens"),
    ):
        verdict = asked.invoke("word " * 900)
        assert verdict.failure is not None
        assert expected in verdict.failure.message


def test_a_failed_chunk_fails_the_whole_unless_another_decides_it() -> None:
    def script(messages: Any) -> AIMessage:
        text = text_of(messages)
        if "mumble" in text:
            return AIMessage("")
        return scored({"rude": 0.9, "fine": 0.1} if "idiot" in text else {"fine": 0.9, "rude": 0.1})

    post = "mumble " + "All is well here. " * 200
    failed = chunk_classifier(script).invoke(post)
    assert failed.failure is not None
    assert failed.failure.kind == "empty"
    assert chunk_classifier(script).invoke(f"{post} idiot").label == "rude"


def test_a_chunk_below_the_gate_abstains_for_the_whole() -> None:
    gate = Gate(alpha=0.1, threshold=0.85)
    post = "All is well here. " * 200
    verdict = chunk_classifier(rude_where("idiot"), gate=gate).invoke(post)
    assert (verdict.status, verdict.predicted_label) == ("abstained", "fine")
    assert chunk_classifier(rude_where("idiot"), gate=gate).invoke(f"{post} idiot").label == "rude"


def test_severity_is_the_tasks_or_the_users() -> None:
    assert LongInput().severity(TASK) == ()
    assert LongInput().severity(POSTS) == (("rude",),)
    assert LongInput(severe=("sad", "calm")).severity(TASK) == (("sad",), ("calm",))
    with pytest.raises(InputError, match="needs severe labels"):
        LongInput(combine="any").severity(TASK)
    with pytest.raises(ValueError, match="severe labels angry are not in"):
        PLDClassifier(artifact=artifact(), student=FakeChatModel(script=None), long_input=LongInput(severe=("angry",)))


def test_the_first_severe_label_wins_over_a_more_confident_one() -> None:
    first, second = (Verdict(status="decided", label=label, confidence=c) for label, c in (("sad", 0.6), ("calm", 0.9)))
    assert most_severe([second, first], [["sad"], ["calm"]]) is first
    assert most_severe([second, first], [["sad", "calm"]]) is second


def test_chunks_without_scores_must_agree() -> None:
    sad, calm = (Scores(log_probabilities=None, label=label, label_mass=None) for label in ("sad", "calm"))
    assert mean_scores([sad, sad]) == sad
    assert isinstance(mean_scores([sad, calm]), Failure)


@pytest.mark.parametrize(("used", "status"), [(999, "failed"), (200, "decided")])
def test_a_prompt_that_filled_ollamas_context_is_no_verdict(used: int, status: str) -> None:
    usage = {"input_tokens": used, "output_tokens": 1, "total_tokens": used + 1}
    reply = scored({"sad": 0.9, "glad": 0.1}).model_copy(update={"usage_metadata": usage})

    class FakeOllama(FakeChatModel):
        num_ctx: int | None = 1_000

        @property
        def _llm_type(self) -> str:
            return "chat-ollama"

    student = FakeOllama(script=lambda _: reply)
    verdict = PLDClassifier(artifact=artifact(student=ModelFingerprint(spec="ollama:fake")), student=student).invoke(
        "x"
    )
    assert verdict.status == status
    assert verdict.failure is None or verdict.failure.kind == "input"


AROUND: dict[str, Callable[[PLDClassifier], Runnable[Any, Any]]] = {
    "itself": lambda inner: inner,
    "with_config": lambda inner: inner.with_config(tags=["x"]),
    "with_retry": lambda inner: inner.with_retry(),
    "with_fallbacks": lambda inner: inner.with_fallbacks([inner]),
    "configurable_fields": lambda inner: inner.configurable_fields(timeout_s=ConfigurableField(id="t")),
    "configurable_alternatives": lambda inner: inner.configurable_alternatives(ConfigurableField(id="c"), other=inner),
    "a chain": lambda inner: RunnableLambda(lambda text: text) | inner.with_retry(),
    "a function": lambda inner: RunnableLambda(inner.invoke, inner.ainvoke),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
async def test_one_bad_chunk_is_not_drowned_whatever_is_put_around_the_classifier(around: Any) -> None:
    plain = POSTS.model_copy(update={"none_label": None})
    policy = GuardrailPolicy(block_labels=["rude"])
    guard = Guard(around(chunk_classifier(rude_where("idiot"), plain)), policy, labels=plain.label_names)
    text = "A harmless sentence. " * 250 + "You idiot. "
    assert guard.check("A harmless sentence. " * 260).allowed
    for decision in (guard.check(text), await guard.acheck(text)):
        assert not decision.allowed
        assert decision.findings[0].verdicts[0].chunks > 10
