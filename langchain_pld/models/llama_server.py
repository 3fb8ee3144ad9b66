"""llama.cpp's server inside the process: a model, its tokenizer and its chat template."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx

from langchain_pld.errors import MissingExtraError, ModelSetupError
from langchain_pld.models.errors import BadCallError, ModelCallError

__all__ = ["LlamaServer", "ServerSettings", "runtime"]

log = logging.getLogger(__name__)

# Tokens per block. A call can only be stopped between blocks; half of llama.cpp's 512 halves the wait.
_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How a model is loaded."""

    path: Path
    """The GGUF file."""
    n_ctx: int
    """Maximum tokens of prompt and answer together."""
    slots: int
    """How many prompts stay cached, each with its own context."""
    threads: int | None
    """Computing threads; by default one per physical core available to the process."""


class LlamaServer:
    """A model file loaded by llama.cpp.

    Raises:
        MissingExtraError: xllamacpp is not installed.
        ModelSetupError: llama.cpp cannot load the file.
    """

    def __init__(self, settings: ServerSettings) -> None:
        path, threads = settings.path, settings.threads or _cores()
        xllamacpp = _import_xllamacpp()
        key = secrets.token_hex(32)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        # An alias, so that no answer carries a local path.
        params.model_alias = {path.stem}
        params.n_ctx = settings.n_ctx * settings.slots
        params.n_parallel = settings.slots
        params.kv_unified = False
        params.n_batch = _BATCH
        params.n_ubatch = _BATCH
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        params.verbosity = -1
        # Turn off everything that would silently move, drop or shift cached tokens.
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
        params.api_keys = [key]
        params.n_threads_http = 2
        params.ui = False
        params.endpoint_slots = False
        params.endpoint_metrics = False
        started = time.monotonic()
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            msg = f"llama.cpp cannot load {path}: {error}. Is there enough memory? Does it know this model?"
            raise ModelSetupError(msg) from error
        log.info("loaded %s in %.1f s", path.name, time.monotonic() - started)
        # The tokenizer is only available at llama.cpp's loopback endpoint; the binding has no call for it.
        self._http = httpx.Client(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
        )

    def complete(
        self, payload: dict[str, Any], receive: Callable[[dict[str, Any]], None], check: Callable[[], None]
    ) -> dict[str, Any]:
        """Answer a prompt; returns the last piece, which has the usage.

        Args:
            payload: The input of llama.cpp's completion endpoint.
            receive: Called with each piece of the answer, and between two blocks of the prompt.
            check: Called before `receive`; an exception ends the work.

        Raises:
            BadCallError: llama.cpp refuses the call.
            ModelCallError: llama.cpp fails.
        """
        last: dict[str, Any] = {}
        problem: Exception | None = None

        def take(piece: dict[str, Any]) -> bool:
            # True stops llama.cpp; an exception would be lost in C++.
            nonlocal last, problem
            try:
                check()
                if "error" in piece:
                    raise _refusal(piece["error"])
                if piece.get("usage"):
                    last = piece
                receive(piece)
            except Exception as error:
                problem = error
            return problem is not None

        check()
        stream = {"stream": True, "return_progress": True, "stream_options": {"include_usage": True}}
        self._server.handle_completions(payload | stream, take)
        if problem is not None:
            raise problem
        if not last:
            raise ModelCallError("llama.cpp ended without an answer")
        return last

    def render(self, messages: list[dict[str, str]]) -> str:
        """Messages (`role` and `content` each) in the model's chat template, with the opening of the answer."""
        return str(self._post("/apply-template", {"messages": messages})["prompt"])

    def tokenize(self, text: str, control: bool, start: bool) -> list[int]:
        """Token ids of a text.

        Args:
            text: The text.
            control: Whether to recognise control tokens in it.
            start: Whether to put the model's start token in front.
        """
        body = {"content": text, "parse_special": control, "add_special": start}
        return [int(token) for token in self._post("/tokenize", body)["tokens"]]

    def close(self) -> None:
        """Free the memory."""
        self._http.close()
        self._server = None
        # The native server is freed with its last reference.
        gc.collect()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = self._http.post(path, json=body)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError, RuntimeError) as error:
            raise ModelCallError(f"llama.cpp does not answer {path}: {error}") from error
        if response.status_code != 200:
            raise BadCallError(f"llama.cpp refuses {path}: {answer.get('error', {}).get('message', answer)}")
        return answer


def _refusal(error: dict[str, Any]) -> ModelCallError:
    kind = BadCallError if error.get("code") == 400 else ModelCallError
    return kind(f"llama.cpp refuses the call: {error.get('message', error)}")


def _import_xllamacpp() -> Any:
    """Import llama.cpp with threads that spin only briefly before they sleep.

    On a busy machine, spinning threads block the very thread they wait for: a token of a 135M model was seen to take
    2.6 s instead of 10 ms. A short spin costs nothing on an idle machine (109 tokens per second against 111), no spin a
    quarter (79). OpenMP reads the variable once, when it is loaded.
    """
    unset = not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if unset:
        os.environ["GOMP_SPINCOUNT"] = "200"
    try:
        import xllamacpp
    except ImportError as error:
        raise MissingExtraError.of("xllamacpp", "embedded") from error
    finally:
        if unset:
            os.environ.pop("GOMP_SPINCOUNT", None)
    return xllamacpp


def runtime(threads: int | None) -> str:
    """What the numbers depend on besides the model: llama.cpp's version, the CPU's kernels, the threads."""
    return f"xllamacpp {version('xllamacpp')}, {_import_xllamacpp().get_system_info()}, {threads or _cores()} threads"


def _cores() -> int:
    # joblib knows affinity, container quotas and hyper-threads, llama.cpp's own count only the last. Its threads spin,
    # so one too many costs more than it gains.
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(cpu_count(only_physical_cores=True))
