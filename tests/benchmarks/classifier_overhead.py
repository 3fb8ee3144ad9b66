"""What `PLDClassifier` adds to the chat model that it asks: `python -m tests.benchmarks.classifier_overhead`.

The same fake model is called directly with the very messages that the classifier sends, and through the classifier, in
one run. The two alternate call by call and round by round, so that what else the machine does hits both alike.

- One at a time: the overhead is the difference of the two neighbouring calls; its p50 and p95 are told.
- 64 at once: rounds in which 64 threads, or tasks, make their calls one after the other; the ratio of the rounds'
  calls a second is told, classifier over direct, as the median of neighbouring rounds.

The fake model states a time-out, as the clients of services do. A client without one, which the classifier has to watch
over from another thread, has rows of its own ("unbounded").

The keys of the last line: overhead over the model without latency (sync and async), and the throughput ratio at 64 over
the model of 20 ms, the lower of sync and async.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from rich.console import Console

from langchain_pld import PLDClassifier
from langchain_pld.student.prompt import chat
from langchain_pld.student.sanitize import clean_text
from tests.benchmarks._report import table
from tests.fakes import FakeChatModel, scored
from tests.student.small_artifact import artifact

TEXT = "It rained all day, and the letter that she had been waiting for did not come. She did not cook that evening."
AT_ONCE = 64
PER_WORKER = 10
WARM_UP = 20
Pairs = list[tuple[float, float]]
REPLY = ChatResult(generations=[ChatGeneration(message=scored({"sad": 0.8, "glad": 0.15, "calm": 0.05}))])


class FakeInstantModel(FakeChatModel):
    """Always the same reply after `latency_s`; keeps no record, which would grow and cost."""

    timeout: float | None = 20.0

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency_s:
            time.sleep(self.latency_s)
        return REPLY

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        return REPLY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2_000, help="calls of each kind, one at a time, without latency")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each kind at 64 at once")
    options = parser.parse_args()

    columns = ("model", "called", "direct p50", "classifier p50", "overhead p50", "p95", "direct 64", "classifier 64")
    title = f"PLDClassifier over the same chat model called directly; {AT_ONCE} at once: calls a second"
    shown = table(title, (*columns, "ratio"), text=columns[:2])
    found: dict[str, float] = {}
    ratios = []
    for latency in (0.0, 0.02):
        calls = options.calls if not latency else max(50, options.calls // 20)
        for called in ("sync", "sync unbounded", "async"):
            student = FakeInstantModel(script=None, latency_s=latency, timeout=None if "unbounded" in called else 20.0)
            classifier = PLDClassifier(artifact=artifact(), student=student)
            messages = chat(classifier.artifact.system_prompt, clean_text(TEXT))
            if called == "async":
                single, together = asyncio.run(measure_async(student, classifier, messages, calls, options.rounds))
            else:
                single, together = measure(student, classifier, messages, calls, options.rounds)
            added = [after - before for before, after in single]
            p50, p95 = statistics.median(added), statistics.quantiles(added, n=20)[-1]
            ratio = statistics.median(after / before for before, after in together)
            suffix = ("_unbounded" if "unbounded" in called else "") + ("" if not latency else "_20ms")
            called_key = called.partition(" ")[0]
            found |= {
                f"{called_key}_overhead_us_p50{suffix}": p50 * 1e6,
                f"{called_key}_overhead_us_p95{suffix}": p95 * 1e6,
            }
            found[f"throughput_ratio_64_{called_key}{suffix}"] = ratio
            if latency and called != "sync unbounded":
                ratios.append(ratio)
            shown.add_row(
                f"{latency * 1000:.0f} ms",
                called,
                *(f"{statistics.median(column) * 1e6:,.0f} µs" for column in zip(*single, strict=True)),
                f"{p50 * 1e6:,.0f} µs",
                f"{p95 * 1e6:,.0f} µs",
                *(f"{statistics.median(column):,.0f}" for column in zip(*together, strict=True)),
                f"{ratio:.2f}",
            )
    console = Console(width=120)
    console.print(shown)
    console.print("targets: overhead p50 at most 300 µs sync and 500 µs async; ratio at 64 at least 0.90 over 20 ms")
    found["throughput_ratio_64"] = min(ratios)
    print(json.dumps({key: round(value, 3 if "ratio" in key else 1) for key, value in sorted(found.items())}))


def measure(
    student: FakeInstantModel, classifier: PLDClassifier, messages: list[BaseMessage], calls: int, rounds: int
) -> tuple[Pairs, Pairs]:
    """Seconds of neighbouring calls, and calls a second of neighbouring rounds: (direct, classifier)."""

    def direct() -> object:
        return student.invoke(messages)

    def through() -> object:
        return classifier.invoke(TEXT)

    single = [(timed(direct), timed(through)) for _ in range(calls + WARM_UP)][WARM_UP:]
    together = [(rate(direct), rate(through)) for _ in range(rounds + 1)][1:]
    return single, together


async def measure_async(
    student: FakeInstantModel, classifier: PLDClassifier, messages: list[BaseMessage], calls: int, rounds: int
) -> tuple[Pairs, Pairs]:
    async def direct() -> object:
        return await student.ainvoke(messages)

    async def through() -> object:
        return await classifier.ainvoke(TEXT)

    single = [(await atimed(direct), await atimed(through)) for _ in range(calls + WARM_UP)][WARM_UP:]
    together = [(await arate(direct), await arate(through)) for _ in range(rounds + 1)][1:]
    return single, together


def timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


async def atimed(call: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


def rate(call: Callable[[], Any]) -> float:
    def work() -> None:
        ready.wait()
        for _ in range(PER_WORKER):
            call()

    gc.collect()
    ready = threading.Barrier(AT_ONCE + 1)
    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    return AT_ONCE * PER_WORKER / (time.perf_counter() - started)


async def arate(call: Callable[[], Awaitable[Any]]) -> float:
    async def work() -> None:
        for _ in range(PER_WORKER):
            await call()

    gc.collect()
    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return AT_ONCE * PER_WORKER / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
