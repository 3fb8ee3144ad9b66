"""Asking the teacher structured questions: within the budget, cached, repaired once, entered in the ledger.

A teacher with answers in files is asked in the same way. A missing answer raises `AnswersPendingError` before anything
is counted; `ask_all` collects all missing ones.
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
"""Namespace of the answers in the Store."""


class Teacher:
    """The teacher as one node uses it.

    Answers are cached in the Store under a hash of model, messages and schema, so no call is paid twice, in a resumed
    run or another one. Failed calls are not cached.

    Args:
        model: The chat model; its rate limiter applies.
        node: The node that asks, for the ledger.
        store: Caches answers.
        concurrency: Calls in flight.
        retry: When to retry a transient failure.
        timeout_s: Time limit of a call in seconds, including the wait in a local model's queue.
        unproven: Whether the model has not answered yet. Its first call then goes alone, and the run ends if the
            service does not answer; later a lost call is only a gap in the data.
        spending: The run's ledger and budget; by default calls are counted but not limited.
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
        """Ask one question, once more if the answer does not fit the schema.

        Returns:
            The answer, or why there is none; a failure of kind `budget` if the question was not asked.

        Raises:
            AnswersPendingError: An offline teacher has not answered yet.
        """
        key = _key(self.spec, messages, schema)
        # If two ask the same at the same time, the second waits for the first one's answer.
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
        except (KeyError, ValidationError):  # stored by another release, or changed by hand
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
            # Counted before the call, each retry too, so that calls in flight count even if the run is killed.
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
            except Exception as error:  # a failed call is data, whatever the client raised
                if passes_through(error) or isinstance(error, BudgetSpent):
                    raise
                return failure_of(error, self.spec)
            raw: AIMessage = result["raw"]
            answer = _read(result["parsed"], str(raw.text), schema)
            if not isinstance(answer, str):
                # Saved before the ledger entry: a run killed in between does not pay twice.
                await self._keep(key, answer)
                await self._record(raw, started)
                return answer
            await self._record(raw, started, failed=True)
            problem = answer
            # Appended to the question, so that everything before stays in the server's prefix cache.
            question = messages[-1]
            messages = [*messages[:-1], HumanMessage(f"{question.text}\n\n{REPAIR.format(problem=problem)}")]
        return _unreadable(problem)

    async def _from_file(
        self, model: FileBackedChatModel, messages: Sequence[BaseMessage], key: str, schema: type[Answer]
    ) -> Answer | Failure:
        """An answer from a file; one that did not fit was asked for again before."""
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
            # The ledger comes first, since the file keeps the answer and nothing is paid twice.
            await self._keep(key, answer)
            return answer
        # Unlike a failed call, it is not repeated when the node runs again, so it counts once.
        await self._store.aput(CALLS, key, {"failed": answer})
        return _unreadable(answer)

    async def _keep(self, key: str, answer: BaseModel) -> None:
        await self._store.aput(CALLS, key, {"answer": answer.model_dump(mode="json")})

    async def _record(self, message: AIMessage | None, started: float, *, failed: bool = False) -> None:
        """Enter a call's tokens and seconds into the ledger, without the wait in a local model's queue."""
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
    """Check that a teacher supports JSON answers, without asking it.

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
    """Await several questions at once, like `asyncio.gather`; `on_progress` is called after each answer.

    Raises:
        AnswersPendingError: An offline teacher has not answered some; the error has all their questions.
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

    The JSON object in the text counts, because the clients' lenient parsers complete cut-off answers. Their result
    counts only if the text has no object, e.g. because the answer came as the arguments of a tool.
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
