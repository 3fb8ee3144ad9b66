"""A guard under load, against a student server that fails: `python -m tests.benchmarks.guard_load`.

1,000 checks, 64 at once, against an Ollama server in another process: 20 ms latency, 2 % of the calls fail with a 503,
1 % hang. The server's answer depends on the text alone, so each check knows which decision is its own. The same client
makes the same calls directly (the same messages, retries and time-outs, nothing read from the answer), with the same
calls failing; the two take turns, in rounds, asynchronously and from threads.

The keys of the last line, each the worst of all rounds, but for the ratio: `lost` (checks without a decision), `mixed`
(decisions that belong to another text), `opened` (texts allowed that were violations or could not be checked), `p95_ms`
and `deadline_ms` of a check, and `throughput_ratio`: checks a second over direct calls a second, the median of
neighbouring rounds, the lower of asynchronous and threads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from langchain_ollama import ChatOllama
from rich.console import Console

from langchain_pld import PLDClassifier
from langchain_pld.artifact import ModelFingerprint
from langchain_pld.guardrail import Decision, Guard, GuardrailPolicy
from langchain_pld.steps import blocking_call, run_steps
from langchain_pld.student.failures import RetryPolicy
from langchain_pld.student.prompt import chat
from langchain_pld.student.providers import profile_of
from langchain_pld.student.sanitize import clean_text
from tests.benchmarks._report import table
from tests.servers.fake_answers import FakeAnswer, Faults, user_text
from tests.servers.ollama import OllamaServer
from tests.student.small_artifact import artifact

REQUESTS = 1_000
AT_ONCE = 64
FAULTS = Faults(latency_s=0.02, error_rate=0.02, hang_rate=0.01, seed=1)
TIMEOUT_S = 1.0
DEADLINE_S = 5.0
LONGEST_S = 85.0
"""No new round is begun after so many seconds."""
RETRY = RetryPolicy(attempts=3, initial_s=0.05)
TEXTS = [f"Note {number}: it rained all day, and the letter did not come." for number in range(REQUESTS)]
Timed = tuple[Any, float]


def is_violation(text: str) -> bool:
    return int(text.split(":")[0].removeprefix("Note ")) % 3 == 0


def answer(request: dict[str, Any]) -> FakeAnswer:
    text = user_text(request).removeprefix("<<<\n")
    return FakeAnswer.picking({"sad": 0.9, "glad": 0.1} if is_violation(text) else {"glad": 0.9, "sad": 0.1})


def serve() -> None:
    """Serve until the standard input ends."""
    with OllamaServer(answer, faults=FAULTS, keep_alive=True) as server:
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def server_process() -> Iterator[str]:
    """The URL of a server in a process of its own, so that it shares no interpreter with the client."""
    command = [sys.executable, "-m", "tests.benchmarks.guard_load", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("")


def student(url: str) -> ChatOllama:
    return ChatOllama(model="fake", base_url=url)


def guard_at(url: str) -> Guard:
    classifier = PLDClassifier(
        artifact=artifact(student=ModelFingerprint(spec="ollama:fake")),
        student=student(url),
        timeout_s=TIMEOUT_S,
        retry=RETRY,
    )
    return Guard(classifier, GuardrailPolicy(block_labels=["sad"], deadline_s=DEADLINE_S))


def guarded_calls(url: str) -> tuple[Callable[[str], Any], Callable[[str], Awaitable[Any]]]:
    guard = guard_at(url)
    return guard.check, guard.acheck


def direct_calls(url: str) -> tuple[Callable[[str], Any], Callable[[str], Awaitable[Any]]]:
    prompt = artifact().system_prompt
    model = student(url).model_copy(update={"num_ctx": 4096})
    bound = profile_of(model).bind(artifact().answer, artifact().scorer, timeout_s=TIMEOUT_S)
    return (
        lambda text: run_steps(RETRY.repeat(blocking_call(partial(bound.invoke, chat(prompt, clean_text(text)))))),
        lambda text: RETRY.acall(partial(bound.ainvoke, chat(prompt, clean_text(text)))),
    )


def run_threads(call: Callable[[str], Any]) -> tuple[list[Timed], float]:
    """Each answer, or the exception, with its seconds; and the calls a second."""

    def one(text: str) -> Timed:
        started = time.perf_counter()
        try:
            reply = call(text)
        except Exception as error:  # counts as a lost request
            reply = error
        return reply, time.perf_counter() - started

    started = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(one, TEXTS))
    return answers, REQUESTS / (time.perf_counter() - started)


def run_async(call: Callable[[str], Awaitable[Any]]) -> tuple[list[Timed], float]:
    """The same with tasks."""

    async def one(text: str, slots: asyncio.Semaphore) -> Timed:
        async with slots:
            started = time.perf_counter()
            try:
                reply = await call(text)
            except Exception as error:  # counts as a lost request
                reply = error
            return reply, time.perf_counter() - started

    async def all_of_them() -> list[Timed]:
        slots = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(one(text, slots) for text in TEXTS))

    started = time.perf_counter()
    answers = asyncio.run(all_of_them())
    return answers, REQUESTS / (time.perf_counter() - started)


def count_faults(answers: list[Timed]) -> dict[str, float]:
    """What went wrong, and how long it took."""
    found: dict[str, float] = {"lost": 0, "mixed": 0, "opened": 0, "errors": 0}
    for text, (decision, _) in zip(TEXTS, answers, strict=True):
        if not isinstance(decision, Decision):
            found["lost"] += 1
            continue
        found["errors"] += decision.outcome == "error"
        found["opened"] += decision.allowed and (decision.outcome != "clear" or is_violation(text))
        found["mixed"] += decision.outcome != "error" and (decision.outcome == "violation") != is_violation(text)
    found["p95_ms"] = statistics.quantiles((seconds * 1000 for _, seconds in answers), n=20)[-1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="rounds of each kind")
    parser.add_argument("--serve", action="store_true", help="be the server; for the benchmark's own use")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    begun = time.perf_counter()
    shown = table(
        f"{REQUESTS} checks, {AT_ONCE} at once, 20 ms latency, 2 % errors, 1 % hangs",
        ("round", "called", "direct/s", "guarded/s", "ratio", "p95 ms", "errors", "lost", "mixed", "opened"),
        text=("called",),
    )
    worst: dict[str, float] = {}
    ratios: dict[str, list[float]] = {"async": [], "threads": []}
    for number in range(options.rounds):
        for called in ratios:
            if number and time.perf_counter() - begun > LONGEST_S:
                continue
            rates: dict[str, float] = {}
            # Whatever else the machine does hits both alike when each goes first as often as the other.
            for kind in ("direct", "guarded") if number % 2 else ("guarded", "direct"):
                with server_process() as url:
                    call, acall = direct_calls(url) if kind == "direct" else guarded_calls(url)
                    answers, rates[kind] = run_threads(call) if called == "threads" else run_async(acall)
                if kind == "guarded":
                    found = count_faults(answers)
            worst = {key: max(value, worst.get(key, 0)) for key, value in found.items()}
            ratio = rates["guarded"] / rates["direct"]
            ratios[called].append(ratio)
            rates_shown = (f"{rates['direct']:.0f}", f"{rates['guarded']:.0f}", f"{ratio:.2f}")
            counts = (f"{found[key]:.0f}" for key in ("p95_ms", "errors", "lost", "mixed", "opened"))
            shown.add_row(str(number + 1), called, *rates_shown, *counts)
    console = Console(width=120)
    console.print(shown)
    console.print("targets: nothing lost, mixed or opened; p95 within the deadline; ratio at least 0.90")
    figures = {
        **{key: int(worst[key]) for key in ("lost", "mixed", "opened")},
        "p95_ms": round(worst["p95_ms"], 1),
        "deadline_ms": DEADLINE_S * 1000,
        "throughput_ratio": round(min(map(statistics.median, ratios.values())), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
