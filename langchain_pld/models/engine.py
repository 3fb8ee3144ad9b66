"""llama.cpp inside the process, made repeatable.

llama.cpp's numbers depend on what was cached before and on what was computed in the same batch: log-probabilities of
one prompt were seen to move by 0.3. Here each request starts from one exactly defined state instead:

- Requests run one at a time, on one thread for the whole process (two at once would only share the same cores).
- A prompt is a *prefix* (all before the content of the last message) and a *tail*. The prefix lies in one of the
  model's slots, computed from nothing and its last token once more alone. The tail is always computed behind exactly
  that, never behind a longer stretch that happened to be cached from an earlier tail. What llama.cpp says it took from
  its cache is checked with each request.

The price is one token of work where two tails begin alike; equal requests give equal bits, in any order and on any
thread, and in another process on the same machine.
"""

from __future__ import annotations

import atexit
import gc
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import httpx

from langchain_pld.errors import MissingExtraError, ModelSetupError
from langchain_pld.models.chat_template import ChatTemplate, ChatTurn, TokenPrompt
from langchain_pld.models.errors import BadCallError, CallTimeoutError, ModelCallError, PromptTooLongError
from langchain_pld.models.gguf import read_gguf_header

__all__ = [
    "Chunk",
    "Completion",
    "CompletionRequest",
    "Engine",
    "EngineSettings",
    "TokenLogprob",
    "get_engine",
    "runtime",
    "submit",
]

log = logging.getLogger(__name__)

TokenLogprob = dict[str, Any]
"""`{"token", "logprob", "top_logprobs": [{"token", "logprob"}, ...]}`, natural logarithms."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What a loaded model is shared by: equal settings, same engine."""

    path: Path
    """The GGUF file."""
    n_ctx: int
    """Longest prompt and answer together, tokens."""
    slots: int
    """How many prefixes are kept."""
    threads: int | None
    """Threads that compute; the physical cores this process may use if None."""


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """One answer to be written."""

    turns: tuple[ChatTurn, ...]
    """The conversation, oldest first."""
    opening: str
    """How the content of the last turn always begins; it is cached with what stands before."""
    max_tokens: int
    """Most tokens of the answer."""
    temperature: float
    """0 takes the likeliest token each time."""
    seed: int
    """Seed of the sampler."""
    stop: tuple[str, ...]
    """Texts that end the answer; they are not part of it."""
    n_probs: int | None
    """How many likeliest tokens to report at each place; None reports no log-probabilities."""
    json_schema: Mapping[str, Any] | None
    """Schema that the answer must follow."""
    timeout: float
    """Seconds from the moment the request is served."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of an answer, as it is written."""

    text: str
    """The new text, perhaps empty."""
    logprobs: tuple[TokenLogprob, ...]
    """The new tokens."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A whole answer."""

    text: str
    """All of it."""
    logprobs: tuple[TokenLogprob, ...]
    """Its tokens; none if the model ended at once or they were not asked for."""
    done_reason: str
    """`stop` or `length`."""
    prompt_tokens: int
    """Length of the prompt."""
    cached_tokens: int
    """How much of the prompt was computed for an earlier request."""
    completion_tokens: int
    """Length of the answer, its end token included."""
    timings: dict[str, float] = field(default_factory=dict)
    """Milliseconds: `queue_ms`, `prefix_ms`, `prompt_ms`, `generate_ms`."""


def submit(
    engine: Callable[[], Engine],
    request: CompletionRequest,
    *,
    on_chunk: Callable[[Chunk], None] | None = None,
    cancel: threading.Event,
) -> Future[Completion]:
    """Queue `request` for the engine that `engine` returns; both run on the one inference thread.

    Args:
        engine: Returns the engine, loading it if it is not there.
        request: What to answer.
        on_chunk: Called on the inference thread with each piece.
        cancel: Set it to end the work, between two tokens or two blocks of the prompt.
    """
    queued = time.monotonic()

    def run() -> Completion:
        if cancel.is_set():
            raise _cancelled()
        return engine().complete(request, on_chunk=on_chunk, cancel=cancel, queued=queued)

    return _inference().submit(run)


def get_engine(settings: EngineSettings) -> Engine:
    """Return the process's engine of these settings, loading it first if need be. Blocks while it loads.

    Raises:
        MissingExtraError: If xllamacpp is not installed.
        ModelSetupError: If the file is no model that llama.cpp can load.
    """
    # Reading without the lock: a dict look-up is atomic, and most calls find their engine.
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

    def __init__(self, settings: EngineSettings) -> None:
        xllamacpp = _import_xllamacpp()
        header = read_gguf_header(settings.path)
        trained = header.context_length or settings.n_ctx
        self.n_ctx: Final = min(settings.n_ctx, trained)
        if self.n_ctx < settings.n_ctx:
            log.info("%s was trained with a context of %d tokens; n_ctx is lowered", settings.path.name, trained)
        self._settings = settings
        self._key = secrets.token_hex(32)
        params = self._parameters(xllamacpp.CommonParams())
        started = time.monotonic()
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            msg = f"llama.cpp cannot load {settings.path}: {error}. Is there enough memory? Does it know this model?"
            raise ModelSetupError(msg) from error
        log.info("loaded %s in %.1f s", settings.path.name, time.monotonic() - started)
        # The tokenizer is reached by llama.cpp's own loopback endpoint, as the binding has no call for it.
        self._http = httpx.Client(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {self._key}"},
            trust_env=False,
            timeout=60,
        )
        self._template = ChatTemplate(self._render, self._tokenize)
        self._slots = [_Slot(number) for number in range(settings.slots)]
        self._keeps_prefixes = True

    def _parameters(self, params: Any) -> Any:
        settings = self._settings
        params.model.path = str(settings.path)
        # An alias, so that no answer carries a path of this machine.
        params.model_alias = {settings.path.stem}
        params.n_ctx = self.n_ctx * settings.slots
        params.n_parallel = settings.slots
        params.kv_unified = False
        params.n_batch = _BATCH
        params.n_ubatch = _BATCH
        params.cpuparams.n_threads = settings.threads or _cores()
        params.cpuparams_batch.n_threads = settings.threads or _cores()
        params.verbosity = -1
        # Everything that would move, drop or shift cached tokens behind our back.
        params.ctx_shift = False
        params.fit_params = False
        params.cache_ram_mib = 0
        params.cache_idle_slots = False
        params.n_cache_reuse = 0
        params.n_ctx_checkpoints = 0
        params.swa_full = True
        # The endpoints listen on loopback, on a free port, behind a key that never leaves this object.
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [self._key]
        params.n_threads_http = 2
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_metrics = False
        return params

    def complete(
        self,
        request: CompletionRequest,
        *,
        on_chunk: Callable[[Chunk], None] | None,
        cancel: threading.Event,
        queued: float,
    ) -> Completion:
        """Answer `request`. Only for the inference thread: nothing else may run on this engine meanwhile.

        Raises:
            BadCallError: If the roles, the schema or an option cannot be served.
            PromptTooLongError: If the prompt leaves no room for an answer.
            CallTimeoutError: If `request.timeout` runs out.
            ModelCallError: If `cancel` was set, or llama.cpp fails.
        """
        started = time.monotonic()
        call = _Call(self._server, cancel, started + request.timeout, request.timeout)
        prompt = self._template.prompt(request.turns, request.opening)
        length = len(prompt.prefix) + len(prompt.tail)
        if length >= self.n_ctx:
            raise PromptTooLongError(length, self.n_ctx)
        slot, reused = self._prepare(prompt, call)
        prepared = time.monotonic()
        answer = _Answer(on_chunk or _nobody, wants_logprobs=request.n_probs is not None)
        payload = _sampling(request, room=self.n_ctx - length) | {
            "prompt": [*prompt.prefix, *prompt.tail],
            "id_slot": slot.number,
            "cache_prompt": self._keeps_prefixes,
        }
        slot.behind = _UNKNOWN
        last = call(payload, answer.add)
        if self._keeps_prefixes:
            self._check(last, len(prompt.prefix) if prompt.tail else length - 1)
            slot.behind = prompt.tail[0] if prompt.tail else _UNKNOWN
        reason = str(last["choices"][0]["finish_reason"])
        if request.json_schema is not None:
            _check_json(answer.text, reason)
        timings = last.get("timings", {})
        return Completion(
            text=answer.text,
            logprobs=tuple(answer.logprobs),
            done_reason="length" if reason == "length" else "stop",
            prompt_tokens=length,
            cached_tokens=len(prompt.prefix) if reused else 0,
            completion_tokens=int(last["usage"]["completion_tokens"]),
            timings={
                "queue_ms": 1000 * (started - queued),
                "prefix_ms": 1000 * (prepared - started),
                "prompt_ms": float(timings.get("prompt_ms", 0.0)),
                "generate_ms": float(timings.get("predicted_ms", 0.0)),
            },
        )

    def token_ids(self, text: str) -> list[int]:
        """Tokens of a plain text, as they stand inside a message."""
        return self._tokenize(text, False, False) if text else []

    def prompt_length(self, turns: Sequence[ChatTurn]) -> int:
        """Length of a prompt in tokens, the chat template included."""
        prompt = self._template.prompt(turns)
        return len(prompt.prefix) + len(prompt.tail)

    def close(self) -> None:
        """Give the memory back. The next `get_engine` with these settings loads the model again."""
        with _registry_lock:
            if _engines.get(self._settings) is self:
                del _engines[self._settings]
        self._http.close()
        self._server = None
        # The native server goes when its last reference does.
        gc.collect()

    # --- slots ---

    def _prepare(self, prompt: TokenPrompt, call: _Call) -> tuple[_Slot, bool]:
        """Bring a slot into the state that the prompt's prefix defines; say whether its work was already done."""
        if not self._keeps_prefixes or not prompt.prefix:
            slot = self._slots[0]
            slot.prefix = None
            return slot, False
        slot = next((slot for slot in self._slots if slot.prefix == prompt.prefix), None) or min(
            self._slots, key=lambda slot: slot.used
        )
        slot.used = time.monotonic_ns()
        if slot.prefix == prompt.prefix:
            if prompt.tail and slot.behind not in (_UNKNOWN, prompt.tail[0]):
                return slot, True
            last = self._feed(slot, prompt.prefix, call, cached=True)
            if _cached(last) == len(prompt.prefix) - 1:
                slot.behind = _NOTHING
                return slot, True
            log.warning("llama.cpp dropped a cached prefix; it is computed again")
        slot.prefix = None
        self._feed(slot, prompt.prefix, call, cached=False)
        last = self._feed(slot, prompt.prefix, call, cached=True)
        if _cached(last) != len(prompt.prefix) - 1:
            # Models with recurrent layers cannot go back to an earlier place.
            log.warning("%s cannot keep prefixes; each prompt is computed whole", self._settings.path.name)
            self._keeps_prefixes = False
            return slot, False
        slot.prefix = prompt.prefix
        slot.behind = _NOTHING
        return slot, False

    def _feed(self, slot: _Slot, tokens: Sequence[int], call: _Call, *, cached: bool) -> dict[str, Any]:
        payload = {"prompt": list(tokens), "id_slot": slot.number, "cache_prompt": cached}
        slot.behind = _UNKNOWN
        return call(payload | {"n_predict": 0, "temperature": 0.0}, lambda _: None)

    def _check(self, last: dict[str, Any], expected: int) -> None:
        if (found := _cached(last)) != expected:
            msg = f"llama.cpp reused {found} tokens where {expected} were due; the answer would not be repeatable"
            raise ModelCallError(msg)

    # --- template and tokenizer ---

    def _render(self, messages: list[dict[str, str]]) -> str:
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def _tokenize(self, text: str, control: bool, start: bool) -> list[int]:
        body = {"content": text, "parse_special": control, "add_special": start}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._http.post(path, json=body)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError, RuntimeError) as error:
            msg = f"llama.cpp does not answer {path}: {error}"
            raise ModelCallError(msg) from error
        if response.status_code != 200:
            msg = f"llama.cpp refuses {path}: {answer.get('error', {}).get('message', answer)}"
            raise BadCallError(msg)
        return answer


# Tokens computed in one go. A call can be stopped only between two blocks; half of llama.cpp's 512 halves the wait.
_BATCH: Final = 256

_NOTHING: Final = -1
_UNKNOWN: Final = -2


@dataclass
class _Slot:
    number: int
    prefix: tuple[int, ...] | None = None
    behind: int = _UNKNOWN
    """The first token behind the prefix: a token id, `_NOTHING`, or `_UNKNOWN`."""
    used: int = 0
    """When it was last used, in nanoseconds of the monotonic clock."""


class _Call:
    """One call into llama.cpp that can be stopped."""

    def __init__(self, server: Any, cancel: threading.Event, deadline: float, timeout: float) -> None:
        self._server = server
        self._cancel = cancel
        self._deadline = deadline
        self._timeout = timeout

    def __call__(self, payload: dict[str, Any], receive: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Run `payload`, hand each piece to `receive`, return the closing piece."""
        last: dict[str, Any] = {}
        problem: Exception | None = None

        def take(piece: dict[str, Any]) -> bool:
            # llama.cpp stops at True; an exception would be lost on its way through C++.
            nonlocal last, problem
            try:
                self._go_on()
                if "error" in piece:
                    raise _refusal(piece["error"])
                if piece.get("usage"):
                    last = piece
                receive(piece)
            except Exception as error:
                problem = error
                return True
            return False

        self._go_on()
        request = payload | {"stream": True, "return_progress": True, "stream_options": {"include_usage": True}}
        self._server.handle_completions(request, take)
        if problem is not None:
            raise problem
        if not last:
            msg = "llama.cpp ended without an answer"
            raise ModelCallError(msg)
        return last

    def _go_on(self) -> None:
        if self._cancel.is_set():
            raise _cancelled()
        if time.monotonic() > self._deadline:
            msg = f"the embedded model did not finish in {self._timeout:g} s and was stopped; give a larger timeout"
            raise CallTimeoutError(msg)


class _Answer:
    """Gathers the pieces of an answer and passes them on."""

    def __init__(self, on_chunk: Callable[[Chunk], None], *, wants_logprobs: bool) -> None:
        self._on_chunk = on_chunk
        self._wants_logprobs = wants_logprobs
        self.text = ""
        self.logprobs: list[TokenLogprob] = []

    def add(self, piece: dict[str, Any]) -> None:
        choice = piece["choices"][0]
        text = str(choice.get("text") or "")
        tokens = (choice.get("logprobs") or {}).get("content") or [] if self._wants_logprobs else []
        logprobs = tuple(
            {**_token(token), "top_logprobs": [_token(other) for other in token["top_logprobs"]]}
            for token in tokens
            if token["bytes"]
        )
        if text or logprobs:
            self.text += text
            self.logprobs += logprobs
            self._on_chunk(Chunk(text=text, logprobs=logprobs))


def _token(token: dict[str, Any]) -> TokenLogprob:
    return {"token": token["token"], "logprob": token["logprob"]}


def _nobody(chunk: Chunk) -> None:
    """Nobody follows the answer as it is written."""


def _sampling(request: CompletionRequest, *, room: int) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "n_predict": min(request.max_tokens, room),
        "temperature": request.temperature,
        "seed": request.seed,
        "stop": list(request.stop),
    }
    if request.n_probs is not None:
        # llama.cpp takes 0 as "no log-probabilities".
        payload["n_probs"] = max(request.n_probs, 1)
    if request.json_schema is not None:
        # Left free, a small model writes line breaks until its tokens are spent.
        style = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
        payload["json_schema"] = {**request.json_schema, "x-guidance": style}
    return payload


def _check_json(text: str, reason: str) -> None:
    """Refuse an answer that is no JSON: llama.cpp ignores, without a word, a schema that it cannot compile."""
    try:
        if reason == "length":
            if not text or text[0] in '{["-0123456789tfn':
                return
        else:
            json.loads(text)
            return
    except ValueError:
        pass
    msg = f"the answer does not follow the JSON schema, which llama.cpp perhaps cannot compile: {text[:80]!r}"
    raise BadCallError(msg)


def _cached(piece: dict[str, Any]) -> int:
    return int(piece["usage"]["prompt_tokens_details"]["cached_tokens"])


def _refusal(error: Mapping[str, Any]) -> ModelCallError:
    message = f"llama.cpp refuses the call: {error.get('message', error)}"
    return BadCallError(message) if error.get("code") == 400 else ModelCallError(message)


def _cancelled() -> ModelCallError:
    return ModelCallError("the call was cancelled")


def _import_xllamacpp() -> Any:
    """Import llama.cpp so that its threads soon sleep where they wait for each other, rather than spin.

    On a machine that has other work, spinning threads keep the cores from the very thread they wait for: a token of a
    135M model was seen to take 2.6 s instead of 10 ms. A short spin costs nothing on an idle machine (109 tokens a
    second against 111), none at all costs a quarter (79). OpenMP reads the variable once, when it is loaded.
    """
    mine = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if mine:
        os.environ["GOMP_SPINCOUNT"] = "200"
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtraError.of("xllamacpp", "embedded") from error
    finally:
        if mine:
            os.environ.pop("GOMP_SPINCOUNT", None)
    return xllamacpp


def runtime(threads: int | None) -> str:
    """What the numbers depend on beside the model: llama.cpp's version, the processor's kernels, the threads."""
    return f"xllamacpp {version('xllamacpp')}, {_import_xllamacpp().get_system_info()}, {threads or _cores()} threads"


def _cores() -> int:
    # joblib knows affinity, containers' quotas and hyper-threads; llama.cpp's own count knows the last only, and its
    # threads spin, so one too many costs more than it brings.
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(cpu_count(only_physical_cores=True))


# --- what the process shares ---

_engines: dict[EngineSettings, Engine] = {}
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
    """Stop llama.cpp's threads before the interpreter goes; those of the executor have ended by then."""
    for engine in list(_engines.values()):
        engine.close()


_left_behind: list[Any] = []


def _forget_in_child() -> None:
    """A forked child has the memory of the engines and none of their threads: it must load its own."""
    global _executor, _registry_lock
    # Kept alive, since taking a native server down would wait for threads that are not there.
    _left_behind.extend(_engines.values())
    _engines.clear()
    _executor = None
    _registry_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
