"""Hostile answers, texts, values and streams by the hundred thousand: `python -m tests.benchmarks.guard_fuzz`.

`--answers 300000 --texts 300000 --values 100000 --streams 10000 --times` is the run of `docs/threat-model.md`. The
rules that judge are this file's own and share no code with the package:

- answers: a student's tokens, well formed or not, in several scripts. A decided label is the word that the whole answer
  begins with, behind the marker where there is one.
- texts: nothing that the student does not read goes on to what is guarded, nothing in what it reads can pass for the
  prompt's own marks, and cleaning twice changes nothing.
- values: a forbidden word anywhere in messages, mappings, lists and objects is blocked, and no value raises.
- streams: no cut of text, reasoning and tool calls, each read by itself, shows the forbidden word.
- times: seconds of a check at a quarter, half and all of the limit, for the worst texts and streams that are known.

The output is one JSON object: how many were tried, `open` (should have been held) and `raised`; the first of each are
printed before it. Random orders of middlewares are a test: `PLD_FUZZ_AGENTS=300 pytest tests/guardrail/test_random.py`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda

from langchain_pld import Label, PLDClassifier, Task
from langchain_pld.answer import AnswerFormat
from langchain_pld.guardrail import Guard, GuardrailPolicy, StreamBuffer, guard_stream, guarded
from langchain_pld.student.failures import RetryPolicy
from tests.fakes import FakeChatModel, scored, text_of

BAD = "FORBIDDEN"
BATCH = 50
"""Texts that are cleaned in one call."""
PRINTED = 5
"""Findings of a kind that are printed."""
GLAD, SAD = scored({"glad": 0.9, "sad": 0.1}), scored({"sad": 0.9, "glad": 0.1})


class Tally:
    """Counts what was tried, and what should not have happened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = Counter({"tried": 0, "open": 0, "raised": 0})

    def report(self, kind: str, *case: Any) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= PRINTED:
            print(f"{self.name} {kind}: {ascii(case)[:800]}", flush=True)


class Student(FakeChatModel):
    """Keeps the last text that it was asked about, not all of them."""

    def _reply(self, messages: Any, options: Any) -> Any:
        self.asked.clear()
        self.options.clear()
        return super()._reply(messages, options)


def classifier(labels: tuple[str, ...], script: Any, *, form: Any = "words", **options: Any) -> PLDClassifier:
    task = Task(name="fuzz", instructions="Decide.", labels=[Label(name=label) for label in labels], **options)
    answer = AnswerFormat(form=form, codes={label: label for label in labels})
    return PLDClassifier.zero_shot(task, Student(script=script), answer=answer, retry=RetryPolicy(attempts=1))


def word_guard(**options: Any) -> Guard:
    script = lambda messages: SAD if BAD in text_of(messages) else GLAD  # noqa: E731
    return Guard(classifier(("glad", "sad"), script, **options), GuardrailPolicy(block_labels=["sad"]))


# Answers

LABELS = (
    ("safe", "risk"),
    ("medical", "medical_advice", "none"),
    ("harmless", "harmful"),
    ("A", "B"),
    ("cafe", "caf\u00e9"),
    ("\u0930\u094b\u0917", "\u0938\u094d\u0935\u0938\u094d\u0925"),  # Hindi: illness, healthy
    ("\u0e14\u0e35", "\u0e23\u0e49\u0e32\u0e22"),  # Thai: good, evil
    ("\u062e\u0637\u0631", "\u0622\u0645\u0646"),  # Arabic: danger, safe
    ("\u5b89\u5168", "\u5371\u9669"),  # Chinese: safe, danger
    ("\uc548\uc804", "\uc704\ud5d8"),  # Korean: safe, danger
)
JOINTS = "_-'/+&@.\u2019\u2010\u2011\u00ad\u200b\u2060\u200d\ufeff\uff07\u203f\u00b7\u30fb\ufe0f"
"""What joins two letters to one word when nothing else stands between them."""
BEHIND = tuple(f"{JOINTS},:;!?()* \n\u0301\u064c\u0940\u0e35")
TAILS = ("", "ty", "guard", "advice", "ful", "s", "risk", "B", "not", "\u4e0d", "\ud558\uc9c0", "<|im_end|>", "9")
JUNK: tuple[Any, ...] = (None, 0, "x", [], {}, math.nan, {"token": b"safe"}, {"token": "safe", "logprob": math.nan})
WRAPPING = " \t\r\n\"'`*_.,:;!()[]{}"
BEFORE_LABEL = (("it", " =>"), ("it =", ">"), ("risk => it", "=>"), (" => ",), ("it",))


def random_answer(labels: tuple[str, ...], form: str, chance: random.Random) -> AIMessage:
    """Pieces that are mostly near a label's word; the list of their log-probabilities may break off or lie."""
    word = chance.choice(labels)
    start = word[: chance.randint(1, len(word))] if chance.random() < 0.3 else word
    cut = chance.randint(0, len(start))
    pieces = [start[:cut], start[cut:]]
    for _ in range(chance.choice([0, 0, 1, 1, 2, 3])):
        pieces += [chance.choice(BEHIND), chance.choice(TAILS)]
    if chance.random() < 0.2:
        pieces.insert(0, chance.choice(["not ", " ", "un", "\u200b", "I ", "**", "\n"]))
    if form == "evidence":
        pieces = [*chance.choice(BEFORE_LABEL), *pieces]
        pieces += [" =>", chance.choice(labels)] if chance.random() < 0.1 else []
    pieces = [piece for piece in pieces if piece or chance.random() < 0.05]
    entries: list[Any] = [entry(piece, labels, chance) for piece in pieces]
    text, kind = "".join(pieces), chance.random()
    if kind < 0.1:
        entries = entries[: chance.randint(0, len(entries))]
    elif kind < 0.2:
        entries[chance.randrange(len(entries))] = chance.choice(JUNK)
    elif kind < 0.28:
        text = chance.choice([f"{text}{chance.choice(TAILS)}", f"{chance.choice(TAILS)}{text}"])
    logprobs = {"content": entries} if chance.random() < 0.3 else entries
    reason = "length" if chance.random() < 0.25 else "stop"
    return AIMessage(text, response_metadata={"logprobs": logprobs, "done_reason": reason})


def entry(token: str, labels: tuple[str, ...], chance: random.Random) -> dict[str, Any]:
    """A token of 0.89, with a label of 0.1 beside it at times; rarely it is not listed itself."""
    options = {chance.choice(labels): 0.1} if chance.random() < 0.5 else {}
    options |= {token: 0.89} if chance.random() > 0.03 else {}
    top = [{"token": text, "logprob": math.log(probability)} for text, probability in options.items()]
    return {"token": token, "logprob": math.log(0.89), "top_logprobs": top}


def named(text: str, labels: tuple[str, ...], *, cut: bool) -> set[str]:
    """The labels that an answer may be decided for: the word that it begins with, or is the beginning of when cut."""
    start = text.lstrip(WRAPPING).casefold()
    codes = {label: label.casefold() for label in labels}
    found = {label for label, code in codes.items() if start.startswith(code) and not goes_on(start[len(code) :])}
    # A longer word with a blank for its underscore is that word, or nothing.
    folded = re.sub(r"[\s_-]+", "_", start)
    longer = {label for label, code in codes.items() if folded.startswith(code) and not start.startswith(code)}
    found -= {label for label in found if any(codes[other].startswith(codes[label]) for other in longer)}
    bare = start.rstrip()
    return found | longer | {label for label, code in codes.items() if cut and bare and code.startswith(bare)}


def goes_on(rest: str) -> bool:
    """Whether what stands behind a word belongs to it: a letter, an accent, a joint with a letter behind it."""
    bare = rest.lstrip(JOINTS)
    return bare[:1] != "" and unicodedata.category(bare[0])[0] in "LMN"


def fuzz_answers(tally: Tally, count: int, chance: random.Random) -> None:
    reply = AIMessage("")
    forms = itertools.product(LABELS, ("words", "evidence"))
    asked = [(labels, form, classifier(labels, lambda _: reply, form=form)) for labels, form in forms]
    for _ in range(count):
        labels, form, student = chance.choice(asked)
        reply = random_answer(labels, form, chance)
        try:
            verdict = student.invoke("x")
        except Exception as error:
            tally.report("raised", error, reply)
            continue
        if verdict.status != "decided":
            continue
        tally.counts["decided"] += 1
        whole = str(reply.content)
        _, marker, text = whole.rpartition("=>") if form == "evidence" else ("", "=>", whole)
        if not marker or verdict.label not in named(
            text, labels, cut=reply.response_metadata["done_reason"] == "length"
        ):
            tally.report("open", form, verdict.label, whole, reply.response_metadata)


# Texts

CHARACTERS = (
    *"aeo bz<>|=[]/.!?'\"\n\t\r<<<>>>=>\uff1c\uff1d\uff1e\u0430\u0435\u03bf\u6f22\u0623\ufdfa\u0301\u0338\u0316\u20dd",
    *"\u200b\u200c\u200d\u2060\u202e\u00ad\ufe0f\ufe0e\ufe01\u034f\u180b\u0378\ud800\udfff\ufffe\u0600\u06dd\u115f",
    *"\u3164\u2800\x00\x1b\x85\u2028\ue000\U000e0041\U000e0100\U00040041\U0001f468\U0001bca0\U000110bd",
    *("<|im_end|>", "[INST]", "</s>", "<start_of_turn>"),
)
KEPT = "\u200c\u200d\ufe0e\ufe0f"
"""What scripts and emoji need, though nobody sees it; the student reads the text without it."""
MARKS = re.compile(r"<<<|>>>|=>|<\||</?s\s*>|<start_of_turn\s*>|\[/?INST\]")


def random_text(chance: random.Random) -> str:
    if chance.random() < 0.2:
        return "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randint(1, 12)))
    return "".join(chance.choices(CHARACTERS, k=chance.randint(1, 24)))


def fuzz_texts(tally: Tally, count: int, chance: random.Random) -> None:
    student = classifier(("glad", "sad"), lambda _: GLAD)
    asked: Any = student.student
    passed: list[list[str]] = []
    chain = guarded(RunnableLambda(passed.append), input_guards=Guard(student, GuardrailPolicy(block_labels=["sad"])))
    parting = "\n\u00a7\n"  # nothing is cleaned across it

    def read(texts: list[str]) -> list[str]:
        """What the student reads of some texts."""
        student.invoke(parting.join(texts))
        return text_of(asked.asked[-1]).split(parting)

    known: dict[str, bool] = {}
    for _ in range(-(-count // BATCH)):
        texts = [random_text(chance).replace("\u00a7", "") for _ in range(BATCH)]
        try:
            cleaned = read(texts)
            passed.clear()
            chain.invoke(texts)
            again, later = read(cleaned), read(passed[0])
            fresh = sorted({*"".join(passed[0])} - {*known, *KEPT}) or ["a"]
            known |= zip(fresh, [part != "ab" for part in read([f"a{char}b" for char in fresh])], strict=True)
        except Exception as error:
            tally.report("raised", error, texts)
            continue
        for before, seen, twice, on, rest in zip(texts, cleaned, again, passed[0], later, strict=True):
            if MARKS.search(seen) or twice != seen:
                tally.report("open", "not clean", before, seen)
            unread = [char for char in on if char not in KEPT and not char.isascii() and not known[char]]
            if unread or rest.split() != seen.split():
                tally.report("open", "goes on unread", unread, before, on)


# Values

CALL: Any = {"name": "f", "args": {"x": "fine"}, "id": "1", "type": "tool_call"}
INVALID: Any = {"name": "f", "id": "2", "error": None, "type": "invalid_tool_call"}
VALUES: tuple[Callable[[str], Any], ...] = (
    lambda word: f"so {word} it is",
    lambda word: {word},
    lambda word: Document(page_content=word),
    lambda word: Document(page_content="fine", metadata={"a": word}),
    lambda word: {word: ""},
    lambda word: {word: None},
    lambda word: {"text": "fine", "context": word},
    lambda word: {"role": "user", "content": word},
    lambda word: {"role": "user", "content": "fine", "name": word},
    lambda word: {"role": "user", "content": word, "text": "fine"},
    lambda word: {"role": "assistant", "content": "fine", "tool_calls": word},
    lambda word: {"type": "human", "content": [{"type": "text", "text": word}]},
    lambda word: ("human", word),
    lambda word: (["human"], word),
    lambda word: HumanMessage("fine", name=word),
    lambda word: SystemMessage(word),
    lambda word: ChatMessage("fine", role=word),
    lambda word: ToolMessage(word, tool_call_id="1"),
    lambda word: HumanMessage([{"type": "text", "text": "fine", "status": word}]),
    lambda word: HumanMessage([{"type": "text", "text": "fine", "annotations": [{"title": word}]}]),
    lambda word: HumanMessage([{"type": "text", "text": [[word]]}]),
    lambda word: HumanMessage([{"type": ["text"], "text": word}]),
    lambda word: HumanMessage([{"type": "redacted_thinking", "text": word}]),
    lambda word: HumanMessage([{"type": "non_standard", "value": {"x": word}}]),
    lambda word: HumanMessage([{"text": word}]),
    lambda word: HumanMessage("fine", additional_kwargs={"__note": word}),
    lambda word: HumanMessage("fine", additional_kwargs={1: word}),
    lambda word: AIMessage([{"type": "reasoning", "summary": [{"type": "summary_text", "text": word}]}]),
    lambda word: AIMessage([{"type": "refusal", "refusal": word}]),
    lambda word: AIMessage([{"type": "tool_use", "id": "1", "name": "f", "input": {"x": word}}], tool_calls=[CALL]),
    lambda word: AIMessage([{"type": "function_call", "call_id": "1", "arguments": word}], tool_calls=[CALL]),
    lambda word: AIMessage("", tool_calls=[{**CALL, "args": {"x": [{"y": word}]}}]),
    lambda word: AIMessage("", invalid_tool_calls=[{**INVALID, "args": word}]),
    lambda word: AIMessage("", additional_kwargs={"reasoning_content": word}),
    lambda word: AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": word}}),
    lambda word: AIMessage("", additional_kwargs={"audio": {"transcript": word}}),
    lambda word: AIMessage("", tool_calls=[CALL], additional_kwargs={"tool_calls": [{"id": "1", "function": word}]}),
)
KEYS = ("text", "input", "messages", "history", "role", "content", "type", "x", "page_content")


def random_value(chance: random.Random, depth: int = 0) -> tuple[Any, bool]:
    """A value, and whether the forbidden word stands in it."""
    if depth > 3 or chance.random() < 0.6:
        planted = chance.random() < 0.4
        return chance.choice(VALUES)(BAD if planted else "fine"), planted
    parts = [random_value(chance, depth + 1) for _ in range(chance.randint(1, 3))]
    values, planted = [value for value, _ in parts], any(found for _, found in parts)
    if chance.random() < 0.5:
        return dict(zip(chance.sample(KEYS, len(parts)), values, strict=True)), planted
    return chance.choice([list, tuple])(values), planted


def fuzz_values(tally: Tally, count: int, chance: random.Random) -> None:
    guard = word_guard()
    for _ in range(count):
        value, planted = random_value(chance)
        try:
            allowed = guard.check(value).allowed
        except Exception as error:
            tally.report("raised", error, value)
            continue
        tally.counts["allowed"] += allowed
        if planted and allowed:
            tally.report("open", value)


# Streams

FILLERS = ("word ", "end. ", "what? ", "\n", "a", "\u3002", "\u2026 ", "x" * 30, "\u00e9\u0301", " ", "!")
CHANNELS: dict[str, Callable[[str], AIMessageChunk]] = {
    "text": lambda piece: AIMessageChunk(piece),
    "block": lambda piece: AIMessageChunk([{"type": "text", "text": piece}]),
    "reasoning": lambda piece: AIMessageChunk([{"type": "reasoning", "reasoning": piece}]),
    "reasoning_content": lambda piece: AIMessageChunk("", additional_kwargs={"reasoning_content": piece}),
    "name": lambda piece: AIMessageChunk("", tool_call_chunks=[{"name": piece, "args": "", "id": None, "index": 0}]),
    "args": lambda piece: AIMessageChunk("", tool_call_chunks=[{"name": None, "args": piece, "id": None, "index": 1}]),
    "escaped": lambda piece: AIMessageChunk("", tool_call_chunks=[{"name": "", "args": piece, "id": None, "index": 2}]),
}


def random_stream(chance: random.Random) -> list[AIMessageChunk]:
    """Several channels, each in its own order, dealt out at random; the forbidden word stands in one of them."""
    # A provider writes text and reasoning in one form each.
    said = [chance.choice(["text", "block"]), chance.choice(["reasoning", "reasoning_content"])]
    planted = chance.choice([*said, "name", "args", "escaped"])
    dealt: list[AIMessageChunk] = []
    channels = []
    for name in sorted({planted, *chance.sample([*said, "args"], chance.randint(1, 3))}):
        text = "".join(chance.choices(FILLERS, k=chance.randint(2, 20)))
        spot = chance.randint(0, len(text))
        text = f"{text[:spot]} {BAD} {text[spot:]}" if name == planted else text
        if name in {"args", "escaped"}:
            text = json.dumps({"text": text})
        if name == "escaped":
            text = text.replace(BAD, "".join(f"\\u{ord(char):04x}" for char in BAD))
        channels.append([CHANNELS[name](piece) for piece in pieces(text, chance)])
    while channels := [channel for channel in channels if channel]:
        dealt += [chance.choice(channels).pop(0), *([AIMessageChunk("")] if chance.random() < 0.05 else [])]
    return dealt


def pieces(text: str, chance: random.Random) -> Iterator[str]:
    cuts = sorted(chance.sample(range(1, len(text)), min(len(text) - 1, chance.randint(0, 6))))
    for start, end in itertools.pairwise([0, *cuts, len(text)]):
        yield text[start:end]


def shown(chunks: list[AIMessageChunk]) -> str:
    """What a person reads of the chunks: each channel by itself."""
    texts: dict[Any, str] = {}
    for chunk in chunks:
        parts = {"text": str(chunk.text), "kwargs": str(chunk.additional_kwargs.get("reasoning_content", ""))}
        parts |= {f"name {part['index']}": part["name"] or "" for part in chunk.tool_call_chunks}
        parts |= {f"args {part['index']}": part["args"] or "" for part in chunk.tool_call_chunks}
        for block in chunk.content if isinstance(chunk.content, list) else []:
            parts["reasoning"] = str(block.get("reasoning", "")) if isinstance(block, dict) else ""
        texts = {key: texts.get(key, "") + parts.get(key, "") for key in {*texts, *parts}}
    return re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), "\n".join(texts.values()))


def fuzz_streams(tally: Tally, count: int, chance: random.Random) -> None:
    guard = word_guard()
    for _ in range(count):
        chunks = random_stream(chance)
        smallest = chance.randint(1, 60)
        by: Any = chance.choice(["sentence", "window", "all"])
        buffer = StreamBuffer(by=by, min_chars=smallest, max_chars=smallest + chance.randint(10, 200))
        try:
            out = list(guard_stream(iter(chunks), guard, buffer=buffer))
        except Exception as error:
            tally.report("raised", error, buffer, chunks)
            continue
        if BAD in shown(out):
            tally.report("open", buffer, [chunk.model_dump(exclude_defaults=True) for chunk in chunks])


# Times

MOST_CHARACTERS = 200_000
TEXTS: dict[str, Callable[[int], str]] = {
    "prose": lambda n: ("the quick brown fox. " * n)[:n],
    "accents of two classes": lambda n: "a" + "\u0316\u0301" * (n // 2),
    "accents in runs of 28": lambda n: ("a" + "\u0301\u0316" * 14) * (n // 29),
    "characters that grow": lambda n: "\ufdfa" * n,
    "exclamation marks": lambda n: "!" * n,
    "quotes behind a full stop": lambda n: "." + '"' * (n - 1),
    "line ends": lambda n: "x" + "\n" * (n - 2) + "y",
    "beginnings of control tokens": lambda n: "<|" * (n // 2),
    "two scripts in each word": lambda n: "a\u0430 " * (n // 3),
    "joiners": lambda n: "a\u200d" * (n // 2),
    "tags": lambda n: "\U000e0041" * n,
    "unassigned characters": lambda n: "\U00040041" * n,
    "Chinese": lambda n: "\u6f22\u5b57\u3002" * (n // 3),
    "letters of Hangul syllables": lambda n: "\u1100\u1161\u11a8" * (n // 3),
}
MOST_CHUNKS = 16_000
STREAMS: dict[str, Callable[[int], list[Any]]] = {
    "words": lambda n: ["word "] * n,
    "letters": lambda n: ["a"] * n,
    "blanks": lambda n: [" "] * n,
    "line ends": lambda n: ["\n"] * n,
    "empty pieces": lambda n: [AIMessageChunk("")] * n,
    "pieces of a call": lambda n: [CHANNELS["args"]('{"text": "')] + [CHANNELS["args"]("ab")] * n,
}


def times() -> dict[str, dict[str, list[float]]]:
    """Seconds at a quarter, half and all of the limit."""
    guard = word_guard(max_chars=MOST_CHARACTERS)

    def measure(check: Callable[[Any], Any], make: Callable[[int], Any], most: int) -> list[float]:
        found = []
        for size in (most // 4, most // 2, most):
            value, start = make(size), time.perf_counter()
            check(value)
            found.append(round(time.perf_counter() - start, 3))
        return found

    stream = lambda chunks: list(guard_stream(iter(chunks), guard))  # noqa: E731
    return {
        "texts": {name: measure(guard.check, make, MOST_CHARACTERS) for name, make in TEXTS.items()},
        "streams": {name: measure(stream, make, MOST_CHUNKS) for name, make in STREAMS.items()},
    }


FUZZERS = {"answers": fuzz_answers, "texts": fuzz_texts, "values": fuzz_values, "streams": fuzz_streams}


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tests.benchmarks.guard_fuzz", description=__doc__, formatter_class=formatter
    )
    for name in FUZZERS:
        parser.add_argument(f"--{name}", type=int, default=0, help=f"random {name} to try")
    parser.add_argument("--times", action="store_true", help="measure the worst texts and streams")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name, fuzz in FUZZERS.items():
        if count := getattr(options, name):
            tally = Tally(name)
            fuzz(tally, count, random.Random(options.seed))
            result[name] = {**tally.counts, "tried": count}
    if options.times:
        result["seconds"] = times()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
