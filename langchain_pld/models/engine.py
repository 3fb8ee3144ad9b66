"""llama.cpp inside the process, made repeatable.

llama.cpp's numbers depend on its cache and on what else is in the batch: log-probabilities of one prompt were seen to
move by 0.3. Here each request starts from one exactly defined state instead:

- Requests run one at a time, on one thread for the whole process (two at once would only share the same cores).
- A prompt is a *prefix* (everything before the content of the last message) and a *tail*. The prefix is in one of the
  model's slots, computed from scratch, with its last token computed once more alone. The tail is always computed after
  exactly that, never after tokens cached from an earlier tail. Each request checks what llama.cpp says it reused.

The price is one token of work where two tails begin alike; equal requests give equal bits, in any order, on any thread,
and in another process on the same machine.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from langchain_pld.models.chat_template import ChatTemplate, ChatTurn, TokenPrompt
from langchain_pld.models.errors import BadCallError, CallTimeoutError, ModelCallError, PromptTooLongError
from langchain_pld.models.gguf import read_gguf_header
from langchain_pld.models.llama_server import LlamaServer, ServerSettings

__all__ = [
    "Chunk",
    "Completion",
    "CompletionRequest",
    "Engine",
    "TokenLogprob",
    "get_engine",
    "submit",
]

log = logging.getLogger(__name__)

TokenLogprob = dict[str, Any]
"""`{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}`, natural logarithms."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request for one answer."""

    turns: tuple[ChatTurn, ...]
    """The conversation, oldest first."""
    opening: str
    """The usual beginning of the last content; it is cached with what comes before."""
    max_tokens: int
    """Maximum tokens of the answer."""
    temperature: float
    """0 takes the likeliest token each time."""
    seed: int
    """Seed of the sampler."""
    stop: tuple[str, ...]
    """Texts that end the answer; they are not part of it."""
    n_probs: int | None
    """How many alternatives to report per token; None reports no log-probabilities."""
    json_schema: Mapping[str, Any] | None
    """Schema that the answer must follow."""
    timeout: float
    """Seconds from the moment work on the request begins."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of an answer while it is written."""

    text: str
    """The new text; may be empty."""
    logprobs: tuple[TokenLogprob, ...]
    """The new tokens."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A whole answer."""

    text: str
    """The whole text."""
    logprobs: tuple[TokenLogprob, ...]
    """Its tokens; empty if the model stopped at once or they were not requested."""
    done_reason: str
    """`stop` or `length`."""
    prompt_tokens: int
    """Length of the prompt."""
    cached_tokens: int
    """Prompt tokens reused from an earlier request."""
    completion_tokens: int
    """Length of the answer, including its end token."""
    queue_ms: float
    """Milliseconds that the request waited for earlier ones."""


def submit(
    engine: Callable[[], Engine],
    request: CompletionRequest,
    *,
    on_chunk: Callable[[Chunk], None] | None = None,
    cancel: threading.Event,
) -> Future[Completion]:
    """Queue `request` for the engine that `engine` returns; both run on the one inference thread.

    Args:
        engine: Returns the engine, loading it if necessary.
        request: What to answer.
        on_chunk: Called on the inference thread with each piece.
        cancel: Set it to stop between two tokens or two blocks of the prompt.
    """
    queued = time.monotonic()

    def run() -> Completion:
        return engine().complete(request, on_chunk=on_chunk, cancel=cancel, queued=queued)

    return _inference().submit(run)


def get_engine(settings: ServerSettings) -> Engine:
    """Return the process's engine for these settings, blocking while it loads if necessary.

    Raises:
        MissingExtraError: xllamacpp is not installed.
        ModelSetupError: llama.cpp cannot load the file.
    """
    # Reading without the lock: a dict lookup is atomic, and most calls find their engine.
    engine = _engines.get(settings)
    if engine is not None:
        return engine
    with _registry_lock:
        engine = _engines.get(settings)
        if engine is None:
            engine = _engines[settings] = Engine(settings)
        return engine


class Engine:
    """A model loaded by llama.cpp. Use `get_engine`, which shares it, and `submit`, which queues for it."""

    def __init__(self, settings: ServerSettings) -> None:
        trained = read_gguf_header(settings.path).context_length or settings.n_ctx
        self.n_ctx: Final = min(settings.n_ctx, trained)
        if self.n_ctx < settings.n_ctx:
            log.info("%s was trained with a context of %d tokens; n_ctx is lowered", settings.path.name, trained)
        self._settings = settings
        self._server = LlamaServer(replace(settings, n_ctx=self.n_ctx))
        self._template = ChatTemplate(self._server.render, self._server.tokenize)
        self._slots = [_Slot(number) for number in range(settings.slots)]
        self._keeps_prefixes = True

    def complete(
        self,
        request: CompletionRequest,
        *,
        on_chunk: Callable[[Chunk], None] | None,
        cancel: threading.Event,
        queued: float,
    ) -> Completion:
        """Answer `request`. Only for the inference thread, since nothing else may run on the engine meanwhile.

        Raises:
            BadCallError: The roles, the schema or an option is not supported.
            PromptTooLongError: The prompt leaves no room for an answer.
            CallTimeoutError: `request.timeout` ran out.
            ModelCallError: `cancel` was set, or llama.cpp failed.
        """
        started = time.monotonic()

        def check() -> None:
            if cancel.is_set():
                raise ModelCallError("the call was cancelled")
            if time.monotonic() > started + request.timeout:
                msg = f"the embedded model did not finish in {request.timeout:g} s and was stopped"
                raise CallTimeoutError(f"{msg}; give a larger timeout")

        chunks: list[Chunk] = []

        def receive(piece: dict[str, Any]) -> None:
            chunk = _chunk(piece, request.n_probs)
            if chunk.text or chunk.logprobs:
                chunks.append(chunk)
                if on_chunk is not None:
                    on_chunk(chunk)

        prompt = self._template.prompt(request.turns, request.opening)
        tokens = [*prompt.prefix, *prompt.tail]
        if len(tokens) >= self.n_ctx:
            raise PromptTooLongError(len(tokens), self.n_ctx)
        slot, reused = self._prepare(prompt, check)
        options = _sampling(request, room=self.n_ctx - len(tokens)) | {"cache_prompt": self._keeps_prefixes}
        last = self._send(slot, tokens, options, receive, check)
        if self._keeps_prefixes:
            expected = len(prompt.prefix) if prompt.tail else len(tokens) - 1
            if (found := _cached(last)) != expected:
                msg = f"llama.cpp reused {found} tokens where {expected} were due; the answer would not be repeatable"
                raise ModelCallError(msg)
            slot.behind = prompt.tail[0] if prompt.tail else _UNKNOWN
        text = "".join(chunk.text for chunk in chunks)
        reason = "length" if last["choices"][0]["finish_reason"] == "length" else "stop"
        if request.json_schema is not None:
            _check_json(text, whole=reason == "stop")
        return Completion(
            text=text,
            logprobs=tuple(chain.from_iterable(chunk.logprobs for chunk in chunks)),
            done_reason=reason,
            prompt_tokens=len(tokens),
            cached_tokens=len(prompt.prefix) if reused else 0,
            completion_tokens=int(last["usage"]["completion_tokens"]),
            queue_ms=1000 * (started - queued),
        )

    def token_ids(self, text: str) -> list[int]:
        """Tokens of a plain text inside a message."""
        return self._server.tokenize(text, False, False) if text else []

    def prompt_length(self, turns: Sequence[ChatTurn]) -> int:
        """Length of a prompt in tokens, including the chat template."""
        prompt = self._template.prompt(turns)
        return len(prompt.prefix) + len(prompt.tail)

    def close(self) -> None:
        """Free the memory. The next `get_engine` with these settings loads the model again."""
        with _registry_lock:
            if _engines.get(self._settings) is self:
                del _engines[self._settings]
        self._server.close()

    def _prepare(self, prompt: TokenPrompt, check: Callable[[], None]) -> tuple[_Slot, bool]:
        """Bring a slot into the state that the prompt's prefix defines; returns it, and whether it was cached."""
        if not self._keeps_prefixes or not prompt.prefix:
            self._slots[0].prefix = None
            return self._slots[0], False
        slot = next((slot for slot in self._slots if slot.prefix == prompt.prefix), None) or min(
            self._slots, key=lambda slot: slot.used
        )
        slot.used = time.monotonic_ns()
        if slot.prefix == prompt.prefix:
            if prompt.tail and slot.behind not in (_UNKNOWN, prompt.tail[0]):
                return slot, True
            if self._rewind(slot, prompt.prefix, check):
                return slot, True
            log.warning("llama.cpp dropped a cached prefix; it is computed again")
        slot.prefix = None
        self._send(slot, prompt.prefix, {**_NO_ANSWER, "cache_prompt": False}, _ignore, check)
        if self._rewind(slot, prompt.prefix, check):
            slot.prefix = prompt.prefix
        else:
            # Models with recurrent layers cannot go back to an earlier position.
            log.warning("%s cannot keep prefixes; each prompt is computed whole", self._settings.path.name)
            self._keeps_prefixes = False
        return slot, False

    def _rewind(self, slot: _Slot, prefix: tuple[int, ...], check: Callable[[], None]) -> bool:
        """Compute the last token of the cached prefix again, alone; False if more had to be computed."""
        last = self._send(slot, prefix, {**_NO_ANSWER, "cache_prompt": True}, _ignore, check)
        slot.behind = _NOTHING
        return _cached(last) == len(prefix) - 1

    def _send(
        self,
        slot: _Slot,
        tokens: Sequence[int],
        options: dict[str, Any],
        receive: Callable[[dict[str, Any]], None],
        check: Callable[[], None],
    ) -> dict[str, Any]:
        slot.behind = _UNKNOWN
        return self._server.complete({"prompt": list(tokens), "id_slot": slot.number, **options}, receive, check)


_NOTHING: Final = -1
_UNKNOWN: Final = -2
_NO_ANSWER: Final = {"n_predict": 0, "temperature": 0.0}


@dataclass
class _Slot:
    number: int
    prefix: tuple[int, ...] | None = None
    behind: int = _UNKNOWN
    """The first token after the prefix: a token id, `_NOTHING`, or `_UNKNOWN`."""
    used: int = 0
    """Last use, in nanoseconds of the monotonic clock."""


def _ignore(piece: dict[str, Any]) -> None:
    """Ignore the answer."""


def _chunk(piece: dict[str, Any], n_probs: int | None) -> Chunk:
    choice = piece["choices"][0]
    tokens = (choice.get("logprobs") or {}).get("content") or [] if n_probs is not None else []
    logprobs = tuple(
        {**_token(token), "top_logprobs": [_token(other) for other in token["top_logprobs"][:n_probs]]}
        for token in tokens
        if token["bytes"]
    )
    return Chunk(text=str(choice.get("text") or ""), logprobs=logprobs)


def _token(token: dict[str, Any]) -> TokenLogprob:
    return {"token": token["token"], "logprob": token["logprob"]}


def _sampling(request: CompletionRequest, *, room: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "n_predict": min(request.max_tokens, room),
        "temperature": request.temperature,
        "seed": request.seed,
        "stop": list(request.stop),
    }
    if request.n_probs is not None:
        # llama.cpp takes 0 as "no log-probabilities".
        options["n_probs"] = max(request.n_probs, 1)
    if request.json_schema is not None:
        # Unconstrained, a small model writes line breaks until its tokens are spent.
        style = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        options["json_schema"] = {**request.json_schema, "x-guidance": style}
    return options


def _check_json(text: str, *, whole: bool) -> None:
    """Refuse an answer that is not JSON: llama.cpp silently ignores a schema that it cannot compile."""
    try:
        if whole:
            json.loads(text)
        elif text[:1] not in '{["-0123456789tfn':
            raise ValueError
    except ValueError as error:
        msg = f"the answer does not follow the JSON schema; perhaps llama.cpp cannot compile it: {text[:80]!r}"
        raise BadCallError(msg) from error


def _cached(piece: dict[str, Any]) -> int:
    return int(piece["usage"]["prompt_tokens_details"]["cached_tokens"])


# --- what the process shares ---

_engines: dict[ServerSettings, Engine] = {}
_registry_lock = threading.RLock()
_executor: ThreadPoolExecutor | None = None


def _inference() -> ThreadPoolExecutor:
    global _executor
    with _registry_lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="langchain-pld-inference")
        return _executor


@atexit.register
def _close_engines() -> None:
    """Stop llama.cpp's threads before the interpreter exits; those of the executor have ended by then."""
    for engine in list(_engines.values()):
        engine.close()


_left_behind: list[Any] = []


def _forget_in_child() -> None:
    """A forked child has the engines' memory but not their threads, so it must load its own."""
    global _executor, _registry_lock
    # Kept alive, because closing a native server would wait for the missing threads.
    _left_behind.extend(_engines.values())
    _engines.clear()
    _executor = None
    _registry_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
