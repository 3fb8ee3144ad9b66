"""Ten thousand answers that a model might give: none that cannot be read becomes a decided verdict."""

import json
import math
import os
import random
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from langchain_pld import PLDClassifier
from langchain_pld.answer import AnswerFormat
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.scoring import read_answer
from langchain_pld.verdict import Failure
from tests.fakes import FakeChatModel, tokens
from tests.student.small_artifact import EVIDENCE, LETTERS, WORDS, artifact

BATCH = 60
# PLD_FUZZ_ANSWERS=300000 for the long run.
ANSWERS = int(os.environ.get("PLD_FUZZ_ANSWERS", "3600"))
EXAMPLES = ANSWERS // BATCH
MIN_MASS = 0.05
WRAPPING = " \t\r\n\"'`*_.,:;!()[]{}"

WORDS_USED = ("glad", "sad", "calm", "A", "B", "C", "Glad", " sad", "CALM", "sa", "gla", "cal", "g", "the", "", " ")
NOISE = (
    "I cannot help with that.", "glad or sad", "glad, calm", "not sad", "<think>sad</think>", "<think>glad",
    "радость", "悲しい", "حزين", "glаd", "s\u200bad", "ｓａｄ", "\ud83d\ude00", "null", "0", "true", "x" * 20_000,
    "Label: sad", "=>", "=> sad", "it mourns => sad", "sad => glad", "=> sad => ", "sadness", "gladly", "```json",
    "\x00", "sad\n\nglad", "Answer: B", "AB", "{", "}", "[]", "…", "<|channel|>final sad",
)  # fmt: skip
WRAPS = (
    "{}",
    " {}",
    "{}.",
    "**{}**",
    '"{}"',
    "{} {}",
    "The answer is {}",
    "{}\n",
    "({})",
    "<think>a</think>{}",
    "a => {}",
)
JSONS = (
    '{{"label": "{}"}}', '{{"label": "{}"', '{{"label": "{}", "label": "glad"}}', '{{"Label": "{}"}}', '["{}"]',
    '{{"label": ["{}"]}}', '{{"label": {{"x": "{}"}}}}', '```json\n{{"label": "{}"}}\n```', 'Sure! {{"label": "{}"}}',
    '{{"label": "{}", "evidence": "sad"}}', '{{"evidence": 3, "label": "{}"}}', '{{"label": "{}"}} {{"label": "sad"}}',
    '"{}"', '{{"label": null, "x": "{}"}}',
)  # fmt: skip
JUNK: tuple[Any, ...] = (None, 0, "x", [], {}, True, math.nan, math.inf, -math.inf, 1.5, "-0.1", [None], 10**400)

word = st.sampled_from(WORDS_USED)
text = st.one_of(
    word,
    st.sampled_from(NOISE),
    st.builds(lambda shape, one: shape.format(one, one), st.sampled_from(WRAPS), word),
    st.text(max_size=8),
)
structured = st.one_of(
    st.builds(lambda shape, one: shape.format(one), st.sampled_from(JSONS), word),
    st.builds(lambda shape, one, cut: shape.format(one)[:cut], st.sampled_from(JSONS), word, st.integers(0, 20)),
    text,
)
probability = st.sampled_from([1e-9, 0.01, 0.04, 0.05, 0.2, 0.4, 0.6, 0.9, 1.0])
option = st.one_of(
    st.builds(lambda token, p: {"token": token, "logprob": math.log(p)}, word, probability),
    st.builds(lambda token, p: {"token": token, "logprob": math.log(p)}, word, probability),
    st.builds(lambda token, value: {"token": token, "logprob": value}, word, st.sampled_from(JUNK)),
    st.sampled_from(JUNK),
)
entry = st.one_of(
    st.builds(
        lambda token, p, options: {"token": token, "logprob": math.log(p), "top_logprobs": options},
        st.one_of(word, st.sampled_from(["=>", " =>", "mourns"])),
        probability,
        st.lists(st.builds(lambda token, p: {"token": token, "logprob": math.log(p)}, word, probability), max_size=4),
    ),
    st.builds(lambda token: {"token": token, "logprob": 0.0, "top_logprobs": []}, word),
    st.builds(
        lambda token, options: {"token": token, "logprob": -0.1, "top_logprobs": options}, word, st.lists(option)
    ),
    st.sampled_from(JUNK),
)
logprobs = st.one_of(
    st.lists(entry, max_size=4),
    st.builds(lambda entries: {"content": entries}, st.lists(entry, max_size=3)),
    st.sampled_from(JUNK),
)
reason = st.sampled_from(["stop", "stop", "length", None])


def by_turns(replies: Iterator[AIMessage]) -> Any:
    return lambda _: next(replies)


def check(answer: AnswerFormat, scorer: Any, replies: list[AIMessage], readable: Any) -> int:
    """Send the replies through the classifier; give the number of decided verdicts."""
    classifier = PLDClassifier(
        artifact=artifact(answer=answer, scorer=scorer, min_label_mass=MIN_MASS),
        student=FakeChatModel(script=by_turns(iter(replies))),
        retry=RetryPolicy(attempts=1, initial_s=0),
    )
    decided = 0
    for reply in replies:
        verdict = classifier.invoke("alas")
        assert verdict.status in {"decided", "failed"}
        assert verdict.failure is None or verdict.failure.kind in {"empty", "cut", "unreadable"}, verdict.failure
        if verdict.status == "decided":
            decided += 1
            allowed = readable(reply, answer)
            assert verdict.label in allowed, (verdict.label, allowed, str(reply.text)[:80], reply.response_metadata)
    return decided


# The oracle shares no code with the package: which labels may be decided at all, given the whole reply.


def says_exactly(text: str, answer: AnswerFormat) -> set[str]:
    return {label for label, code in answer.codes.items() if text.strip(WRAPPING).casefold() == code.casefold()}


def readable_text(reply: AIMessage, answer: AnswerFormat) -> set[str]:
    text = str(reply.text)
    if reply.response_metadata.get("done_reason") == "length" or "<think" in text or "<|channel" in text:
        return set()
    if answer.form != "evidence":
        return says_exactly(text, answer)
    return says_exactly(text.split("=>")[-1], answer) if "=>" in text else set()


def readable_json(reply: AIMessage, answer: AnswerFormat) -> set[str]:
    text = str(reply.text).strip()
    if reply.response_metadata.get("done_reason") == "length":
        return set()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json")
    try:
        pairs = json.loads(text, object_pairs_hook=list)
    except ValueError:
        return set()
    labels = [value for name, value in pairs if name == "label"] if text.strip().startswith("{") else []
    return says_exactly(labels[0], answer) if len(labels) == 1 and isinstance(labels[0], str) else set()


def label_mass(options: Any, answer: AnswerFormat) -> dict[str, float]:
    """Probability of each label among well-formed alternatives: a code, or three letters or more of its beginning."""
    masses: dict[str, float] = {}
    for one in options:
        token, value = one["token"].strip(WRAPPING).casefold(), one["logprob"]
        for label, code in answer.codes.items():
            if token == code.casefold() or (len(token) >= 3 and code.casefold().startswith(token)):
                masses[label] = masses.get(label, 0) + math.exp(value)
    return masses


def listed(entry: Any) -> list[Any]:
    """The alternatives, with the token that was written where they leave it out."""
    own = (
        []
        if any(isinstance(one, dict) and one.get("token") == entry["token"] for one in entry["top_logprobs"])
        else [entry]
    )
    return [*entry["top_logprobs"], *own]


def well_formed(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("top_logprobs"), list):
        return False
    options = listed(entry)
    good = all(
        isinstance(one, dict)
        and isinstance(one.get("token"), str)
        and type(one.get("logprob")) in {float, int}
        and one["logprob"] <= 0
        for one in options
    )
    return good and sum(math.exp(one["logprob"]) for one in options) <= 1.01


def readable_logprobs(reply: AIMessage, answer: AnswerFormat) -> set[str]:
    entries = reply.response_metadata["logprobs"]
    entries = entries["content"] if isinstance(entries, dict) and "content" in entries else entries
    if not isinstance(entries, list) or not entries:
        return set()
    # A malformed entry ends the list: what stands before it may still be read.
    usable = list(takewhile(well_formed, entries))
    if answer.form == "evidence":
        markers = [index for index, one in enumerate(usable) if "=>" in one["token"]]
        usable = [one for one in usable[markers[-1] + 1 :] if one["token"].strip(WRAPPING)] if markers else []
    if not usable:
        return set()
    # The scored tokens may be the beginning of a text that spells a label, or most of one.
    whole = label_mass([{"token": str(reply.text), "logprob": 0.0}], answer)
    spelt = (
        set(whole)
        if answer.form != "evidence" and str(reply.text).strip().startswith(usable[0]["token"].strip())
        else set()
    )
    options = listed(usable[0])
    masses = label_mass(options, answer)
    if not masses or sum(masses.values()) < MIN_MASS * (1 - 1e-9):
        return spelt
    best = max(masses.values())
    strays = [math.exp(one["logprob"]) for one in options if not label_mass([one], answer)]
    if max(strays, default=0) > best * (1 + 1e-9):
        return spelt
    return spelt | {label for label, mass in masses.items() if mass >= best * (1 - 1e-9)}


def message(content: str, done: str | None, metadata: dict[str, Any], *, agrees: bool = False) -> AIMessage:
    if agrees:
        content = written(metadata.get("logprobs")) or content
    return AIMessage(content, response_metadata={**metadata, **({"done_reason": done} if done else {})})


def written(entries: Any) -> str:
    """What the tokens spell: the content of a reply that is at one with its log-probabilities."""
    entries = entries.get("content") if isinstance(entries, dict) else entries
    tokens = [one.get("token") for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    return "".join(token for token in tokens if isinstance(token, str))


@pytest.mark.parametrize(
    ("scorer", "contents", "metadata", "readable"),
    [
        ("text", text, st.just({}), readable_text),
        ("structured", structured, st.just({}), readable_json),
        ("logprobs", word, st.builds(lambda found: {"logprobs": found}, logprobs), readable_logprobs),
    ],
    ids=["text", "structured", "logprobs"],
)
def test_no_unreadable_answer_is_decided(scorer: str, contents: Any, metadata: Any, readable: Any) -> None:
    answers = decided = 0

    # The assertion tells the answer as it is: shrinking it would take minutes.
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.builds(message, contents, reason, metadata, agrees=st.booleans()), min_size=BATCH, max_size=BATCH),
        st.sampled_from([WORDS, LETTERS, EVIDENCE]),
    )
    def fuzz(replies: list[AIMessage], answer: AnswerFormat) -> None:
        nonlocal answers, decided
        answers += len(replies)
        decided += check(answer, scorer, replies, readable)

    fuzz()
    # Three scorers make 10,000 answers and more; a share of them can be read, or nothing would have been tested.
    assert answers >= 3_400
    assert 0.003 < decided / answers < 0.9


PIECES = (
    "medical", "_", "_advice", "advice", "harm", "less", "ful", "safe", "ty", " ", ".", "-", "none", "\n", "=>", " =>",
    "'", "med", "ical", "Harm", " safe", "s", "h", "", "é", "ß", "非", "<|im_end|>", '"', "sad", ",", "\u200b", "n",
)  # fmt: skip
NESTED = AnswerFormat(codes={"m": "medical", "a": "medical_advice", "h": "harmless", "s": "safe", "n": "none"})


@pytest.mark.parametrize("form", ["words", "evidence"])
def test_no_answer_that_goes_on_as_another_word_is_decided(form: Any) -> None:
    answer = NESTED.model_copy(update={"form": form})
    chance = random.Random(7)
    decided = 0
    for _ in range(ANSWERS):
        pieces = chance.choices(PIECES, k=chance.randint(1, 6))
        outcome = read_answer(tokens(*pieces), answer, "logprobs", min_label_mass=MIN_MASS)
        if isinstance(outcome, Failure):
            continue
        decided += 1
        text = "".join(pieces).split("=>")[-1] if form == "evidence" else "".join(pieces)
        code = re.escape(answer.codes[outcome.label])
        assert re.match(rf"{code}(?![-_'’.&\u200b]*[^\W_])", text.lstrip(WRAPPING).casefold()), (pieces, outcome.label)
    assert decided > ANSWERS / 100
