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
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, TypeVar, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, message_to_dict
from langgraph.store.base import BaseStore
from pydantic import BaseModel, ValidationError

from langchain_pld.artifact import LedgerLine
from langchain_pld.distillation.run.ledger import outcome
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
        self._spending = spending or Spending()
        self._unproven = unproven
        self._proof = asyncio.Lock()
        self._silent: DistillationError | None = None

    @property
    def ledger(self) -> list[LedgerLine]:
        """What the run has spent so far."""
        return self._spending.ledger

    async def ask(self, messages: Sequence[BaseMessage], schema: type[Answer], *, draft: int = 0) -> Answer | Failure:
        """Ask one question.

        A question whose answer does not fit the schema is asked once more, with what was wrong.

        Args:
            messages: The question.
            schema: Pydantic model of the answer.
            draft: Which answer to the same question is wanted: each number is asked, and kept, by itself. Whether a
                second one differs from the first is up to the model's temperature.

        Returns:
            The answer, or why there is none; the failure is of kind `budget` where the question was not asked.

        Raises:
            AnswersPendingError: The teacher answers later, and this answer is not there yet.
        """
        key = _key(self.spec, messages, schema, draft)
        # Of two that ask the same at one time, the second waits for the first one's answer.
        async with self._asking[key], self._slots:
            known = await self._known(key, schema)
            if known is not None:
                await self._spending.add(LedgerLine(node=self._node, model=self.spec, cache_hits=1))
                return known
            if isinstance(self._model, FileBackedChatModel):
                question = Question.of(messages, schema.model_json_schema(), draft)
                return await self._from_file(self._model, question, key, schema)
            try:
                return await self._proving(list(messages), key, schema)
            except BudgetSpent as spent:
                await self._spending.keep()
                return Failure(kind="budget", message=str(spent))

    async def _known(self, key: str, schema: type[Answer]) -> Answer | None:
        kept = await self._store.aget(CALLS, key)
        try:
            return schema.model_validate(kept.value["answer"]) if kept is not None else None
        except (KeyError, ValidationError):  # kept by a release with other rules, or changed by hand
            return None

    async def _proving(self, messages: list[BaseMessage], key: str, schema: type[Answer]) -> Answer | Failure:
        if not self._unproven:
            return await self._fresh(messages, key, schema)
        async with self._proof:
            if self._silent is not None:
                raise self._silent
            answer = await self._fresh(messages, key, schema)
            if isinstance(answer, Failure) and answer.kind in NOT_ANSWERING:
                msg = f"nothing more was asked, since the teacher {self.spec} cannot be used: {answer.message}"
                self._silent = DistillationError(msg)
                raise self._silent
            self._unproven = False
        return answer

    async def _fresh(self, messages: list[BaseMessage], key: str, schema: type[Answer]) -> Answer | Failure:
        structured = self._model.with_structured_output(schema.model_json_schema(), include_raw=True)

        async def call() -> tuple[dict[str, Any], float]:
            self._spending.check(self.spec)
            # Counted before it is made, each retry too: calls in flight count, and a killed run knows of them.
            await self._spending.add(LedgerLine(node=self._node, model=self.spec, calls=1))
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._timeout_s):
                    return cast("dict[str, Any]", await structured.ainvoke(messages)), started
            except Exception as error:
                if not passes_through(error):
                    await self._enter(None, started, failed=True)
                raise

        problem = ""
        for _ in range(2):
            try:
                result, started = await self._retry.acall(call)
            except Exception as error:  # a failed call is data for the run, whatever the client raised
                if passes_through(error) or isinstance(error, BudgetSpent):
                    raise
                return failure_of(error, self.spec)
            raw: AIMessage = result["raw"]
            answer = _read(result["parsed"], str(raw.text), schema)
            if not isinstance(answer, str):
                # Before its tokens are entered: killed in between, a run does not pay for it again.
                await self._keep(key, answer)
            await self._enter(raw, started, failed=isinstance(answer, str))
            if not isinstance(answer, str):
                return answer
            problem = answer
            # Said inside the question, so that all before it stays in the server's prefix cache.
            question = messages[-1]
            messages = [*messages[:-1], HumanMessage(f"{question.text}\n\n{REPAIR.format(problem=problem)}")]
        return _unreadable(problem)

    async def _from_file(
        self, model: FileBackedChatModel, question: Question, key: str, schema: type[Answer]
    ) -> Answer | Failure:
        """An answer out of a file; one that did not fit was asked for again before it came here."""
        refused = self._spending.over(self.spec)
        if refused is not None:
            await self._spending.keep()
            return Failure(kind="budget", message=refused)
        found = await asyncio.to_thread(model.answer_to, question)
        answer = _read(None, found.text, schema)
        line = LedgerLine(node=self._node, model=self.spec)
        if await self._store.aget(CALLS, key) is not None:
            line = line.model_copy(update={"cache_hits": 1})
        else:
            tokens = {"input_tokens": found.input_tokens, "output_tokens": found.output_tokens}
            line = line.model_copy(update={"calls": 1, "failures": int(isinstance(answer, str)), **tokens})
        await self._spending.add(line)
        if not isinstance(answer, str):
            # The file has it for good, so that nothing is paid twice: the ledger comes first.
            await self._keep(key, answer)
            return answer
        # Unlike a call that failed, it is not made again when the node runs again: it counts once.
        await self._store.aput(CALLS, key, {"failed": answer})
        return _unreadable(answer)

    async def _keep(self, key: str, answer: BaseModel) -> None:
        await self._store.aput(CALLS, key, {"answer": answer.model_dump(mode="json")})

    async def _enter(self, message: AIMessage | None, started: float, *, failed: bool) -> None:
        line = outcome(self._node, self.spec, message, failed=failed, seconds=time.perf_counter() - started)
        usage = message.usage_metadata if message is not None else None
        details = usage.get("input_token_details", {}) if usage else {}
        await self._spending.add(line, cached_tokens=details.get("cache_read") or 0)


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


def _key(spec: str, messages: Sequence[BaseMessage], schema: type[BaseModel], draft: int) -> str:
    content: list[Any] = [spec, [message_to_dict(message) for message in messages], schema.model_json_schema()]
    content += [draft] if draft else []
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
