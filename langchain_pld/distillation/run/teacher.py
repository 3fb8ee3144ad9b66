"""Asking the teacher: one structured question at a time, within the budget, cached, repaired once, in the ledger.

A teacher whose answers lie in files is asked in the same way. Where an answer is not there yet, asking raises
`AnswersPendingError`, before anything is counted; `ask_all` asks several so that it names all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, message_to_dict
from langgraph.store.base import BaseStore
from pydantic import BaseModel, ValidationError

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.progress import OnProgress
from langchain_pld.distillation.run.spending import BudgetSpent, Spending
from langchain_pld.errors import AnswersPendingError, DistillationError, ModelSetupError
from langchain_pld.models.batch_rows import REPAIR, Question, json_object
from langchain_pld.models.file_backed import FileBackedChatModel
from langchain_pld.student.failures import RetryPolicy, failure_of, passes_through
from langchain_pld.student.probe import NOT_ANSWERING
from langchain_pld.student.providers import model_spec
from langchain_pld.verdict import Failure

__all__ = ["CALLS", "Teacher", "ask_all", "check_teacher"]

Answer = TypeVar("Answer", bound=BaseModel)
T = TypeVar("T")

_SCHEMA = {"title": "Check", "description": "An answer.", "type": "object", "properties": {"ok": {"type": "boolean"}}}

CALLS = ("pld", "teacher_calls")
"""Where the Store keeps answers."""


class Teacher:
    """The teacher as one node uses it.

    An answer is cached in the Store under a hash of model, messages and schema: a call once paid is not paid again,
    neither in a resumed run nor in another one that asks the same. A failed call is not cached.

    Args:
        model: The chat model. Its own rate limiter is waited for.
        node: The node that asks, for the ledger.
        store: Where answers are cached.
        concurrency: Calls in flight.
        retry: When a transient failure is tried again.
        timeout_s: Seconds that a call may take, the wait in a local model's queue included.
        unproven: Whether nothing is known of the model yet. Then its first call goes alone, and the run ends if the
            service does not answer it; later the loss of a call is a gap in the data.
        spending: The run's ledger and budget; without it the calls are counted, and not limited.
    """

    def __init__(
        self,
        model: BaseChatModel,
        *,
        node: str,
        store: BaseStore,
        concurrency: int,
        retry: RetryPolicy | None = None,
        timeout_s: float = 600.0,
        unproven: bool = False,
        spending: Spending | None = None,
    ) -> None:
        self.spec = model_spec(model)
        self._model = model
        self._node = node
        self._store = store
        self._slots = asyncio.Semaphore(concurrency)
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._retry = retry or RetryPolicy(attempts=4, initial_s=1.0, max_s=30.0)
        self._timeout_s = timeout_s
        self.spending = spending or Spending()
        self._unproven = unproven
        self._proof = asyncio.Lock()
        self._dead: DistillationError | None = None

    async def ask(self, messages: Sequence[BaseMessage], schema: type[Answer]) -> Answer | Failure:
        """Ask one question.

        A question whose answer does not fit the schema is asked once more, with what was wrong.

        Args:
            messages: The question.
            schema: Pydantic model of the answer.

        Returns:
            The answer, or why there is none; the failure is of kind `budget` where the question was not asked.

        Raises:
            AnswersPendingError: The teacher answers later, and this answer is not there yet.
        """
        key = _key(self.spec, messages, schema)
        # Of two that ask the same at one time, the second waits for the first one's answer.
        async with self._asking[key], self._slots:
            known = await self._known(key, schema)
            if known is not None:
                await self.spending.add(LedgerLine(node=self._node, model=self.spec, cache_hits=1))
                return known
            try:
                if isinstance(self._model, FileBackedChatModel):
                    return await self._from_file(self._model, messages, key, schema)
                return await self._first_alone(list(messages), key, schema)
            except BudgetSpent as spent:
                await self.spending.keep()
                return Failure(kind="budget", message=str(spent))

    async def _known(self, key: str, schema: type[Answer]) -> Answer | None:
        kept = await self._store.aget(CALLS, key)
        try:
            return schema.model_validate(kept.value["answer"]) if kept is not None else None
        except (KeyError, ValidationError):  # kept by a release with other rules, or changed by hand
            return None

    async def _first_alone(self, messages: list[BaseMessage], key: str, schema: type[Answer]) -> Answer | Failure:
        if not self._unproven:
            return await self._call(messages, key, schema)
        async with self._proof:
            if self._dead is not None:
                raise self._dead
            answer = await self._call(messages, key, schema)
            if isinstance(answer, Failure) and answer.kind in NOT_ANSWERING:
                msg = f"nothing more was asked, since the teacher {self.spec} cannot be used: {answer.message}"
                self._dead = DistillationError(msg)
                raise self._dead
            self._unproven = False
        return answer

    async def _call(self, messages: list[BaseMessage], key: str, schema: type[Answer]) -> Answer | Failure:
        structured = self._model.with_structured_output(schema.model_json_schema(), include_raw=True)

        async def attempt() -> tuple[dict[str, Any], float]:
            self.spending.check(self.spec)
            # Counted before it is made, each retry too: calls in flight count, and a killed run knows of them.
            await self.spending.add(LedgerLine(node=self._node, model=self.spec, calls=1))
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return cast("dict[str, Any]", await structured.ainvoke(messages)), started
            except Exception as error:
                if not passes_through(error):
                    await self._record(None, started, failed=True)
                raise

        problem = ""
        for _ in range(2):
            try:
                result, started = await self._retry.acall(attempt)
            except Exception as error:  # a failed call is data for the run, whatever the client raised
                if passes_through(error) or isinstance(error, BudgetSpent):
                    raise
                return failure_of(error, self.spec)
            raw: AIMessage = result["raw"]
            answer = _read(result["parsed"], str(raw.text), schema)
            if not isinstance(answer, str):
                # Before its tokens are in the ledger: killed in between, a run does not pay for it again.
                await self._keep(key, answer)
                await self._record(raw, started)
                return answer
            await self._record(raw, started, failed=True)
            problem = answer
            # Said inside the question, so that all before it stays in the server's prefix cache.
            question = messages[-1]
            messages = [*messages[:-1], HumanMessage(f"{question.text}\n\n{REPAIR.format(problem=problem)}")]
        return _unreadable(problem)

    async def _from_file(
        self, model: FileBackedChatModel, messages: Sequence[BaseMessage], key: str, schema: type[Answer]
    ) -> Answer | Failure:
        """An answer out of a file; one that did not fit was asked for again before it came here."""
        self.spending.check(self.spec)
        found = await asyncio.to_thread(model.answer_to, Question.of(messages, schema.model_json_schema()))
        answer = _read(None, found.text, schema)
        if await self._store.aget(CALLS, key) is not None:
            figures = {"cache_hits": 1}
        else:
            figures = {"calls": 1, "failures": int(isinstance(answer, str))}
            figures |= {"input_tokens": found.input_tokens, "output_tokens": found.output_tokens}
        await self.spending.add(LedgerLine(node=self._node, model=self.spec, **figures))
        if not isinstance(answer, str):
            # The file has it for good, so that nothing is paid twice: the ledger comes first.
            await self._keep(key, answer)
            return answer
        # Unlike a call that failed, it is not made again when the node runs again: it counts once.
        await self._store.aput(CALLS, key, {"failed": answer})
        return _unreadable(answer)

    async def _keep(self, key: str, answer: BaseModel) -> None:
        await self._store.aput(CALLS, key, {"answer": answer.model_dump(mode="json")})

    async def _record(self, message: AIMessage | None, started: float, *, failed: bool = False) -> None:
        """Enter a call's tokens and seconds into the ledger.

        Calls in flight wait for each other where the model runs in this process; such a wait is left out, or the
        seconds of calls made at one time would add up to a multiple of what they took.
        """
        seconds = time.perf_counter() - started
        usage = message.usage_metadata if message is not None else None
        timings = message.response_metadata.get("timings") if message is not None else None
        queued = timings.get("queue_ms") if isinstance(timings, Mapping) else None
        line = LedgerLine(
            node=self._node,
            model=self.spec,
            failures=int(failed),
            input_tokens=usage["input_tokens"] if usage else 0,
            output_tokens=usage["output_tokens"] if usage else 0,
            seconds=max(0.0, seconds - (queued / 1000 if isinstance(queued, int | float) else 0.0)),
        )
        details = usage.get("input_token_details", {}) if usage else {}
        await self.spending.add(line, cached_tokens=details.get("cache_read") or 0)


def check_teacher(teacher: BaseChatModel) -> None:
    """Make sure that a teacher can answer as JSON; nothing is asked.

    Raises:
        ModelSetupError: It cannot.
    """
    try:
        teacher.with_structured_output(_SCHEMA, include_raw=True)
    except NotImplementedError as error:
        msg = (
            f"{model_spec(teacher)} cannot be the teacher: its class {type(teacher).__name__} has no "
            "with_structured_output, which a teacher's JSON answers need. Name a model of a provider that has it, e.g. "
            "google_genai:gemini-2.5-pro; or write the answers to files with batch:DIR"
        )
        raise ModelSetupError(msg) from error


async def ask_all(asks: Iterable[Awaitable[T]], on_progress: OnProgress = lambda *_: None) -> list[T]:
    """Await several questions at one time, as `asyncio.gather` does.

    Args:
        asks: What asks them.
        on_progress: Called whenever one has its answer.

    Raises:
        AnswersPendingError: Some wait for answers of the teacher; it has the questions of all of them.
    """
    waiting = list(asks)
    done = 0

    async def answer_or_wait(ask: Awaitable[T]) -> T | AnswersPendingError:
        nonlocal done
        try:
            answer = await ask
        except AnswersPendingError as pending:
            return pending
        done += 1
        on_progress(done, len(waiting))
        return answer

    results = await asyncio.gather(*map(answer_or_wait, waiting))
    pending = [result for result in results if isinstance(result, AnswersPendingError)]
    if pending:
        questions = {one.id: one for error in pending for one in error.questions}
        msg = f"{len(questions)} questions have no answer yet"
        raise AnswersPendingError(msg, tuple(questions.values()))
    return [result for result in results if not isinstance(result, AnswersPendingError)]


def _unreadable(problem: str) -> Failure:
    return Failure(kind="unreadable", message=f"the teacher's answer did not fit the schema twice: {problem}")


def _read(parsed: Any, text: str, schema: type[Answer]) -> Answer | str:
    """The answer, or what is wrong with it.

    The JSON object of the text counts, whatever stands around it: the clients' own parser is lenient, it completes an
    answer that was cut off, and half a sentence would pass. What they parsed counts where the text has none, for
    instance because the answer came as the arguments of a tool.
    """
    if "{" in text:
        try:
            parsed = json_object(text)
        except ValueError as error:
            return str(error)
    try:
        return schema.model_validate(parsed)
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".lstrip(": ") for e in error.errors()[:3])


def _key(spec: str, messages: Sequence[BaseMessage], schema: type[BaseModel]) -> str:
    content = [spec, [message_to_dict(message) for message in messages], schema.model_json_schema()]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
