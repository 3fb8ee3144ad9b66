"""Reading answers: what fits gives scores, whatever else is a failure and never a guess."""

import math
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from langchain_pld.answer import AnswerFormat
from langchain_pld.student.first_tokens import first_tokens_differ, with_first_tokens, with_written_tokens
from langchain_pld.student.label_words import LabelWords
from langchain_pld.student.scoring import Scores, answer_schema, read_answer, thinks
from langchain_pld.verdict import Failure
from tests.fakes import scored, tokens
from tests.student.small_artifact import EVIDENCE, LETTERS, TASK, WORDS


def read(message: AIMessage, answer: AnswerFormat = WORDS, scorer: Any = "logprobs", mass: float = 0.05) -> Scores:
    outcome = read_answer(message, answer, scorer, min_label_mass=mass)
    assert isinstance(outcome, Scores), outcome
    return outcome


def failed(message: AIMessage, answer: AnswerFormat = WORDS, scorer: Any = "logprobs", mass: float = 0.05) -> Failure:
    outcome = read_answer(message, answer, scorer, min_label_mass=mass)
    assert isinstance(outcome, Failure), outcome
    return outcome


def shares(outcome: Scores) -> dict[str, float]:
    assert outcome.log_probabilities is not None
    return {label: math.exp(value) for label, value in outcome.log_probabilities.items()}


def test_the_mass_on_labels_is_renormalised() -> None:
    outcome = read(scored({"sad": 0.6, "glad": 0.2, "the": 0.2}))
    assert outcome.label == "sad"
    assert outcome.label_mass == pytest.approx(0.8)
    assert shares(outcome) == pytest.approx({"sad": 0.75, "glad": 0.25, "calm": 0}, abs=1e-5)


def test_spellings_of_one_label_add_up() -> None:
    outcome = read(scored({"glad": 0.35, "sad": 0.2, " Sad": 0.1, '"SAD': 0.1, "sad.": 0.1}))
    assert outcome.label == "sad"
    assert shares(outcome)["sad"] == pytest.approx(0.5 / 0.85, abs=1e-5)


def test_letters_are_read() -> None:
    assert read(scored({"B": 0.5, " A": 0.3, "b": 0.1}), LETTERS).label == "sad"


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("hate", "hate"),
        (" Hate", "hate"),
        ("hat", "hate"),
        ("harassment", "harassment"),
        ("har", "harassment"),
        ("ha", None),
        ("h", None),
        ("non", None),
        ("none", "none"),
        ("nonsense", "nonsense"),
        ("hater", None),
        ("", None),
        (" ", None),
        ("the", None),
    ],
)
def test_a_beginning_counts_only_when_it_is_long_and_fits_one_label(token: str, label: str | None) -> None:
    codes = {name: name for name in ("hate", "harassment", "none", "nonsense")}
    assert LabelWords(codes).match(token)[0] == label


def test_codes_that_begin_alike_are_noticed() -> None:
    assert first_tokens_differ(WORDS)
    assert not first_tokens_differ(AnswerFormat(codes={"a": "none", "b": "Nonsense"}))
    assert not first_tokens_differ(AnswerFormat(codes={"a": "no", "b": "not_mentioned"}))
    assert first_tokens_differ(AnswerFormat(codes={"a": "yes", "b": "no", "c": "unstated"}))


def tokenizer_of_tokens(*tokens: str) -> Callable[[str], list[int]]:
    """Takes the longest known token each time, else a single character."""

    def token_ids(text: str) -> list[int]:
        ids = []
        while text:
            token = max((one for one in (*tokens, text[0]) if text.startswith(one)), key=len)
            ids.append(tokens.index(token) if token in tokens else 1000 + ord(token))
            text = text[len(token) :]
        return ids

    return token_ids


NO = AnswerFormat(codes={"a": "no", "b": "not_mentioned"})


@pytest.mark.parametrize(
    ("tokens", "differ"),
    [
        (("no", "not", " no", " not"), True),
        (("no", "not"), True),  # the space is a token of its own, and nothing is said by it
        (("no", "not", " n"), False),  # with a space before it, both begin alike
        (("no",), False),  # not_mentioned begins with the other code
        (("n",), False),
        (("no", "not_", " no", " not_"), True),
        (("no", "nottingham", " no", " not"), False),
    ],
)
def test_the_students_own_tokens_say_whether_codes_can_be_told_apart(tokens: tuple[str, ...], differ: bool) -> None:
    assert first_tokens_differ(NO, tokenizer_of_tokens(*tokens)) is differ


HATE = AnswerFormat(codes={"hate": "hateful", "fine": "non_hateful"})


def test_a_short_first_token_counts_once_it_is_known_to_begin_one_code_alone() -> None:
    known = with_first_tokens(HATE, tokenizer_of_tokens("h", "ateful", "non", " hateful", " non"))
    assert known.first_tokens == {"hate": ("h",)}
    assert first_tokens_differ(HATE, tokenizer_of_tokens("h", "ateful", "non"))
    outcome = read(scored({"h": 0.6, "non": 0.2, "H": 0.1}), known)
    assert outcome.label == "hate"
    assert shares(outcome) == pytest.approx({"hate": 0.75, "fine": 0.25}), "what begins in another case is another word"


def test_a_short_first_token_of_two_codes_counts_for_none() -> None:
    alike = AnswerFormat(codes={"a": "hateful", "b": "harmless"})
    tokenizer = tokenizer_of_tokens("h", "ateful", "armless")
    assert with_first_tokens(alike, tokenizer).first_tokens == {}
    assert not first_tokens_differ(alike, tokenizer)


def test_a_short_token_that_may_be_the_answer_is_never_dropped_in_silence() -> None:
    problem = failed(scored({"h": 0.6, "non": 0.3}), HATE)
    assert problem.kind == "unreadable"
    assert "60% of the probability was on 'h'" in problem.message
    assert read(scored({"h": 0.1, "non": 0.8}), HATE).label == "fine"  # whatever the h means, it is the smaller part


def test_an_unclear_part_as_large_as_the_lead_leaves_the_answer_readable_and_a_larger_one_does_not() -> None:
    assert read(scored({"h": 0.25, "non": 0.5, "hateful": 0.25}), HATE).label == "fine"
    assert failed(scored({"h": 0.26, "non": 0.5, "hateful": 0.25}), HATE).kind == "unreadable"


def test_a_mass_that_is_just_enough_is_enough() -> None:
    assert read(scored({"sad": 0.5}), mass=0.5).label == "sad"
    assert failed(scored({"sad": 0.5}), mass=0.501).kind == "unreadable"


def test_a_refusal_is_no_label_that_begins_with_its_first_letter() -> None:
    insults = AnswerFormat(codes={"bad": "insult", "good": "clean"})
    assert failed(scored({"I": 0.7, "clean": 0.2}), insults).kind == "unreadable"
    known = with_first_tokens(insults, tokenizer_of_tokens("ins", "ult", "clean", " ins", " clean"))
    assert read(scored({"I": 0.1, "ins": 0.6, "clean": 0.2}), known).label == "bad"
    assert failed(scored({"I": 0.97, "clean": 0.02}), known).kind == "unreadable"


def test_first_tokens_are_learned_from_what_the_student_writes() -> None:
    written = {"hate": scored({"h": 0.9}), "fine": scored({" non": 0.9})}
    assert with_written_tokens(HATE, written).first_tokens == {"hate": ("h",)}
    refusing = {**written, "hate": scored({"I": 0.9})}
    assert with_written_tokens(HATE, refusing).first_tokens is None


@pytest.mark.parametrize("code", [" sad", "sad ", "sad.", '"sad"', "(sad", "sad\n", "*", "sad:"])
def test_a_code_that_could_never_be_read_exactly_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="white space or punctuation"):
        AnswerFormat(codes={"a": code, "b": "glad"})


@pytest.mark.parametrize(("mass", "readable"), [(0.04, False), (0.06, True)])
def test_little_mass_on_labels_is_unreadable(mass: float, readable: bool) -> None:
    outcome = read_answer(
        scored({"sad": mass, **{f"the{n}": 0.05 for n in range(18)}}), WORDS, "logprobs", min_label_mass=0.05
    )
    assert isinstance(outcome, Scores) is readable
    if isinstance(outcome, Failure):
        assert outcome.kind == "unreadable"
        assert "only 4.0% of the probability" in outcome.message


@pytest.mark.parametrize("scorer", ["logprobs", "structured", "text"])
@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_answer_is_a_failure_of_its_own_kind(scorer: Any, content: str) -> None:
    assert failed(AIMessage(content), scorer=scorer).kind == "empty"


def test_an_answer_without_log_probabilities_says_what_to_use() -> None:
    assert "use the scorer 'structured' or 'text'" in failed(AIMessage("sad")).message


def test_the_words_before_the_marker_are_the_evidence() -> None:
    outcome = read(tokens("he", " died", " =>", (" sad", {" sad": 0.9, " glad": 0.1})), EVIDENCE)
    assert (outcome.label, outcome.evidence) == ("sad", "he died")
    assert shares(outcome)["sad"] == pytest.approx(0.9, abs=1e-4)


def test_a_marker_in_two_tokens_is_found() -> None:
    assert read(tokens("x", " =", ">", " ", "sad"), EVIDENCE).label == "sad"


def test_the_last_marker_counts_when_the_quotation_forges_one() -> None:
    outcome = read(tokens('"x', " =>", " glad", '"', " =>", " sad"), EVIDENCE)
    assert outcome.label == "sad"
    assert outcome.evidence is not None
    assert "glad" in outcome.evidence


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (tokens("he", " died"), "unreadable"),
        (tokens("he", " died", " =>"), "unreadable"),
        (tokens("he", " died", done_reason="length"), "cut"),
        (tokens("x", " =>", " glad", " =>", done_reason="length"), "cut"),
        (tokens("x", " =>", " dunno"), "unreadable"),
    ],
)
def test_evidence_without_a_label_is_a_failure(message: AIMessage, kind: str) -> None:
    assert failed(message, EVIDENCE).kind == kind


def entry(token: Any, logprob: Any, **more: Any) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, **more}


TOP = [entry("sad", math.log(0.7)), entry("glad", math.log(0.3))]


@pytest.mark.parametrize(
    "raw",
    [
        [entry("sad", math.log(0.7), top_logprobs=TOP)],
        {"content": [entry("sad", math.log(0.7), top_logprobs=TOP)]},
        [SimpleNamespace(token="sad", logprob=math.log(0.7), top_logprobs=[SimpleNamespace(**one) for one in TOP])],
        ({"token": "sad", "top_logprobs": tuple(TOP)},),
        [entry("sad", 0.0, top_logprobs=[*TOP, entry("x", -math.inf)])],
    ],
)
def test_the_shapes_of_the_providers_are_read_alike(raw: Any) -> None:
    outcome = read(AIMessage("sad", response_metadata={"logprobs": raw}))
    assert shares(outcome) == pytest.approx({"sad": 0.7, "glad": 0.3, "calm": 0}, abs=1e-5)


def test_a_token_without_alternatives_stands_for_itself() -> None:
    assert read(AIMessage("sad", response_metadata={"logprobs": [entry("sad", -0.1)]})).label == "sad"


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        "sad",
        b"sad",
        3,
        {},
        {"content": None},
        {"content": "sad"},
        [None],
        ["sad"],
        [{}],
        [entry("sad", math.nan)],
        [entry("sad", 0.5)],
        [entry("sad", math.inf)],
        [entry("sad", "0")],
        [entry("sad", None)],
        [entry("sad", True)],
        [entry(3, -1.0)],
        [entry("sad", -(10**400))],
        [entry("sad", 10**400)],
        [entry("sad", 0, top_logprobs=5)],
        [entry("sad", 0, top_logprobs="sad")],
        [entry("sad", 0, top_logprobs=[entry("sad", -0.1), entry("glad", math.nan)])],
        [entry("sad", 0, top_logprobs=[entry("sad", -0.1), entry("glad", -0.1)])],
        [entry("sad", -math.inf)],
    ],
    ids=repr,
)
def test_numbers_that_are_no_probabilities_are_unreadable(raw: Any) -> None:
    assert failed(AIMessage("sad", response_metadata={"logprobs": raw})).kind == "unreadable"


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ('{"label": "sad"}', "sad"),
        ('```json\n{"label": "SAD "}\n```', "sad"),
        ('```{"label": "glad"}```', "glad"),
        # A fence on one side only: the answer was cut, or is a piece of something else.
        ('```json\n{"label": "sad"}', None),
        ('{"label": "sad"}\n```', None),
        ('{"label": "sadness"}', None),
        ('{"label": ["sad"]}', None),
        ('{"label": null}', None),
        ('["sad"]', None),
        ('"sad"', None),
        ("sad", None),
        ('{"label": "sad"} and more', None),
        ('{"lable": "sad"}', None),
        ('{"label": "sad", "label": "glad"}', None),
        ("[" * 100_000, None),
        ('{"label": "sad, glad"}', None),
        ('<think>hm</think>{"label": "sad"}', None),
    ],
)
def test_structured_answers(content: str, label: str | None) -> None:
    outcome = read_answer(AIMessage(content), WORDS, "structured")
    assert (outcome.label if isinstance(outcome, Scores) else None) == label
    if isinstance(outcome, Failure):
        assert outcome.kind == "unreadable"


def test_structured_evidence_is_kept_for_its_form_only() -> None:
    content = AIMessage('{"evidence": "he died", "label": "sad"}')
    assert read(content, EVIDENCE, "structured").evidence == "he died"
    assert read(content, WORDS, "structured").evidence is None


def test_the_schema_lists_the_codes_and_puts_evidence_first() -> None:
    schema = answer_schema(EVIDENCE)
    assert list(schema["properties"]) == schema["required"] == ["evidence", "label"]
    assert schema["properties"]["label"]["enum"] == ["glad", "sad", "calm"]
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("content", "label"),
    [
        ("sad", "sad"),
        (" **Sad**.\n", "sad"),
        ("`glad`", "glad"),
        ('"calm"', "calm"),
        ("The answer is sad", None),
        ("sad glad", None),
        ("sad, glad", None),
        ("sad\nglad", None),
        ("not sad", None),
        ("sadly", None),
        ("sa", None),
        ("<think>glad?</think>sad", None),
        ("<|channel|>final sad", None),
        ("I cannot help with that.", None),
        ("```\nsad\n```", "sad"),
        ("label: sad", None),
    ],
)
def test_text_answers_must_be_exactly_one_label(content: str, label: str | None) -> None:
    outcome = read_answer(AIMessage(content), WORDS, "text")
    assert (outcome.label if isinstance(outcome, Scores) else None) == label


def test_text_evidence_stands_before_the_last_marker() -> None:
    outcome = read(AIMessage("a => glad => sad"), EVIDENCE, "text")
    assert (outcome.label, outcome.evidence) == ("sad", "a => glad")
    assert failed(AIMessage("sad"), EVIDENCE, "text").kind == "unreadable"


@pytest.mark.parametrize("scorer", ["structured", "text"])
@pytest.mark.parametrize(
    "metadata", [{"done_reason": "length"}, {"finish_reason": "MAX_TOKENS"}, {"stop_reason": "max_tokens"}]
)
def test_a_cut_answer_is_never_read(scorer: Any, metadata: dict[str, str]) -> None:
    message = AIMessage('{"label": "sad"}' if scorer == "structured" else "sad", response_metadata=metadata)
    assert failed(message, scorer=scorer).kind == "cut"


def test_tokens_that_the_text_does_not_begin_with_are_thinking_that_was_dropped() -> None:
    dropped = tokens(("glad", {"glad": 0.9, "sad": 0.1}), "?", SURE).model_copy(update={"content": "sad"})
    assert failed(dropped).kind == "unreadable"
    assert shares(read(dropped, THINKING))["sad"] == pytest.approx(0.9, abs=1e-4)


THINKING = WORDS.model_copy(update={"thinking_tokens": 50})
SURE = (" sad", {" sad": 0.9, " glad": 0.1})


@pytest.mark.parametrize(
    "message",
    [
        tokens("<think>", "glad", "?", "</think>", "\n\n", SURE),
        tokens("<think>", "glad", "</", "think", ">", SURE),
        tokens("<think>", "</think>", "glad", "</think>", SURE),
        tokens("<|channel|>", "analysis", "glad", "<|channel|>", "final", "<|message|>", SURE),
    ],
)
def test_an_answer_behind_thinking_is_read_where_there_is_room_for_it(message: AIMessage) -> None:
    assert shares(read(message, THINKING))["sad"] == pytest.approx(0.9, abs=1e-4)
    assert failed(message).kind == "unreadable"


def test_thinking_that_the_client_keeps_apart_is_stepped_over() -> None:
    message = tokens("glad", "?", " no", "\n", SURE)
    apart = message.model_copy(update={"content": "sad", "additional_kwargs": {"reasoning_content": "glad? no"}})
    assert shares(read(apart, THINKING))["sad"] == pytest.approx(0.9, abs=1e-4)
    elsewhere = apart.model_copy(update={"content": "calm"})
    assert failed(elsewhere, THINKING).kind == "unreadable"
    assert failed(apart).kind == "unreadable"


@pytest.mark.parametrize("answer", [WORDS, THINKING, EVIDENCE])
@pytest.mark.parametrize(
    "message",
    [
        tokens("<think>", "sad", done_reason="length"),
        tokens("<think>", "sad", "</think>", done_reason="length"),
        # The client dropped the thinking: the text is empty, the tokens are not.
        tokens("sad", "ly", done_reason="length").model_copy(update={"content": ""}),
        tokens("sad", done_reason="length").model_copy(
            update={"content": "", "additional_kwargs": {"reasoning_content": "sad"}}
        ),
    ],
)
def test_thinking_that_used_up_the_tokens_is_a_cut_answer(message: AIMessage, answer: AnswerFormat) -> None:
    outcome = failed(message, answer)
    assert outcome.kind == "cut"
    assert "thinking" in outcome.message


@pytest.mark.parametrize(
    ("content", "scorer", "label"),
    [
        ("<think>glad?</think>sad", "text", "sad"),
        ('<think>{"label": "glad"}</think>\n{"label": "sad"}', "structured", "sad"),
        ("<think>glad?", "text", None),
        ("<think>a</think><think>sad", "text", None),
        ("sad<think>", "text", None),
    ],
)
def test_text_behind_thinking_is_read_where_there_is_room_for_it(content: str, scorer: Any, label: str | None) -> None:
    outcome = read_answer(AIMessage(content), THINKING, scorer)
    assert (outcome.label if isinstance(outcome, Scores) else None) == label


words = st.sampled_from(
    ["sad", "glad", "calm", " Sad", "A", "b", "=>", "sa", "<think>", "</think>", "the", "", "label", "evidence"]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.text(max_size=6) | st.just(-(10**400)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["token", "logprob", "top_logprobs", "content", "label"]) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
options = st.fixed_dictionaries({"token": words | junk, "logprob": st.floats(max_value=0) | junk})
entries = st.fixed_dictionaries(
    {"token": words | junk, "logprob": st.floats(max_value=0) | junk},
    optional={"top_logprobs": st.lists(options, max_size=4) | junk},
)
answers = st.builds(
    AIMessage,
    content=st.text(max_size=30)
    | st.lists(words, max_size=4).map(" ".join)
    | words.map(lambda w: f'{{"label": "{w}"}}'),
    response_metadata=st.fixed_dictionaries(
        {},
        optional={
            "logprobs": st.lists(entries, max_size=4)
            | junk
            | st.builds(lambda e: {"content": e}, st.lists(entries, max_size=3)),
            "done_reason": st.sampled_from(["stop", "length"]) | junk,
        },
    ),
)


@settings(max_examples=2000, deadline=None)
@given(
    answers, st.sampled_from([WORDS, LETTERS, EVIDENCE, THINKING]), st.sampled_from(["logprobs", "structured", "text"])
)
def test_no_answer_whatever_raises_or_makes_a_label_up(message: AIMessage, answer: AnswerFormat, scorer: Any) -> None:
    outcome = read_answer(message, answer, scorer)
    if isinstance(outcome, Failure):
        assert outcome.kind in {"empty", "cut", "unreadable"}
        return
    assert outcome.label in TASK.label_names
    if scorer == "logprobs":
        assert sum(shares(outcome).values()) == pytest.approx(1)
        assert outcome.label_mass is not None
        assert 0 < outcome.label_mass <= 1
    else:
        assert outcome.log_probabilities is None
        assert answer.codes[outcome.label].casefold() in message.text.casefold()


def test_log_probabilities_in_any_mapping_are_read() -> None:
    raw = scored({"sad": 0.9, "glad": 0.1}).response_metadata["logprobs"][0]
    entry = MappingProxyType({**raw, "top_logprobs": tuple(map(MappingProxyType, raw["top_logprobs"]))})
    message = AIMessage("sad", response_metadata={"logprobs": MappingProxyType({"content": [entry]})})
    assert read(message).label == "sad"


def test_an_answer_right_behind_thinking_without_markers_is_read() -> None:
    """The client took the thinking out of the text; the tokens hold it, and no space before the answer."""
    message = tokens("hm", ("sad", {"sad": 0.8, "glad": 0.2}))
    message = AIMessage("sad", response_metadata=message.response_metadata)
    assert read(message, WORDS.model_copy(update={"thinking_tokens": 50})).label == "sad"


def test_a_code_without_any_token_cannot_be_told_apart() -> None:
    known = {"glad": [1], "sad": [2], " ": [3], " glad": [4], " sad": [5]}
    assert first_tokens_differ(AnswerFormat(codes={"glad": "glad", "sad": "sad"}), lambda text: known.get(text, []))
    assert not first_tokens_differ(WORDS, lambda text: known.get(text, []))


def test_a_students_thinking_is_seen() -> None:
    assert thinks(AIMessage("<think>hm</think>sad"))
    assert thinks(AIMessage("sad", response_metadata=tokens("sad", "<think>", "hm").response_metadata))
    assert not thinks(scored({"sad": 0.9}))


@pytest.mark.parametrize("stray", ["zzz", " I", "", "The"])
def test_an_answer_that_is_mostly_something_else_is_never_a_label(stray: str) -> None:
    problem = failed(scored({stray: 0.8, "glad": 0.06, "sad": 0.06, "calm": 0.05}))
    assert problem.kind == "unreadable"
    assert "the likeliest answer, with 80%" in problem.message


ADVICE = AnswerFormat(codes={"m": "medical", "a": "medical_advice", "n": "none"})
HARM = AnswerFormat(codes={"harmless": "harmless", "safe": "safe"})


@pytest.mark.parametrize(
    ("message", "answer", "label"),
    [
        (tokens("medical", "_advice"), ADVICE, "a"),
        (tokens("medical", "_", "advice"), ADVICE, "a"),
        (tokens("medical", ("_advice", {"_advice": 0.6, "\n": 0.4})), ADVICE, "a"),
        (tokens("medical", ("\n", {"_advice": 0.4, "\n": 0.6})), ADVICE, "m"),
        (tokens("medical", " question"), ADVICE, "m"),
        (tokens("medical", "<|im_end|>"), ADVICE, "m"),
        (tokens("medical"), ADVICE, "m"),
        (tokens("medical", done_reason="length"), ADVICE, None),
        (tokens("medical", "_", done_reason="length"), ADVICE, None),
        (tokens("medical", "_advices"), ADVICE, None),
        (tokens("medicals"), ADVICE, None),
        (tokens("med", "ical_adv", done_reason="length"), ADVICE, "a"),
        (tokens("med", "ical_adv", ":", done_reason="length"), ADVICE, None),
        (tokens("harm", "ful"), HARM, None),
        (tokens("harm", "less"), HARM, "harmless"),
        (tokens("harm", "lessly"), HARM, None),
        (tokens("harm"), HARM, None),
        (tokens("safe", "ty", " risk"), HARM, None),
        (tokens("safe", "-", "ish"), HARM, None),
        (tokens("safe", "."), HARM, "safe"),
        (tokens("safety risk"), HARM, None),
    ],
)
def test_a_word_is_read_to_its_end(message: AIMessage, answer: AnswerFormat, label: str | None) -> None:
    outcome = read_answer(message, answer, "logprobs", min_label_mass=0.05)
    assert (outcome.label if isinstance(outcome, Scores) else None) == label


@pytest.mark.parametrize("after", [("safety", " risk"), ("safe", "ty", " risk"), (" safe", "ty")])
def test_evidence_that_ends_in_another_word_is_unreadable(after: tuple[str, ...]) -> None:
    answer = HARM.model_copy(update={"form": "evidence"})
    assert failed(tokens("a", " knife", " =>", *after), answer).kind == "unreadable"


def test_words_that_begin_alike_share_the_probability_by_how_they_go_on() -> None:
    message = tokens(
        ("medical", {"medical": 0.8, "none": 0.2}), ("_advice", {"_advice": 0.75, "\n": 0.25}), done_reason="length"
    )
    assert shares(read(message, ADVICE)) == pytest.approx({"a": 0.6, "m": 0.2, "n": 0.2})
