"""A loopback server that speaks Ollama's wire protocol, so that the real `ChatOllama` can be tested.

Source of the wire form: the types of the `ollama` package and https://docs.ollama.com/api.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic_ns
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from tests.servers.fake_answers import Backend, End, FakeToken, Faults, ModelCall, Part, fake_embedding
from tests.servers.loopback import LoopbackServer, RecordedRequest, Reply, Wire

_MESSAGES: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
_SETTINGS = {"num_predict": "max_tokens", "temperature": "temperature", "seed": "seed", "stop": "stop"}


@dataclass(frozen=True, kw_only=True)
class OllamaModel:
    """A model that the server has, as `/api/tags` and `/api/show` describe it."""

    name: str = "fake:latest"
    digest: str = "0" * 64
    size: int = 1_000_000
    family: str = "llama"
    parameter_size: str = "135M"
    quantization_level: str = "Q4_K_M"
    context_length: int = 8192
    parameters: str = 'stop                           "<|im_end|>"'
    capabilities: tuple[str, ...] = ("completion", "tools", "thinking")


class OllamaServer(LoopbackServer):
    """Ollama's API in front of a backend.

    A chat model as the backend gets `max_tokens`, `temperature`, `seed`, `stop`, `logprobs`, `top_logprobs` and
    `response_format` as call arguments, where the request has them; it neither calls tools nor thinks, so its
    `OllamaModel` should have the capability "completion" only.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        models: Sequence[OllamaModel] = (OllamaModel(),),
        faults: Faults | None = None,
        keep_alive: bool = False,
    ) -> None:
        super().__init__(backend, faults=faults, keep_alive=keep_alive)
        self._models = {model.name: model for model in models}

    async def respond(self, request: RecordedRequest, reply: Reply) -> None:
        """Answer one request."""
        match request.method, request.path:
            case "GET", "/api/tags":
                _send(reply, {"models": [_listed(model) for model in self._models.values()]})
            case "POST", "/api/show" | "/api/chat" | "/api/embed" as path:
                await self._answer_about_model(path, request.body, reply)
            case _:
                reply.send(404, b"404 page not found", "text/plain")

    async def _answer_about_model(self, path: str, body: dict[str, Any] | None, reply: Reply) -> None:
        if body is None:
            _refuse(reply, 400, "missing request body")
        elif not (name := str(body.get("model") or "")):
            _refuse(reply, 400, "model is required")
        elif (model := self._models.get(name) or self._models.get(f"{name}:latest")) is None:
            _refuse(reply, 404, f"model '{name}' not found")
        elif path == "/api/show":
            _send(reply, _shown(model))
        elif path == "/api/embed":
            _embed(name, body, reply)
        elif (refusal := _refusal(model, body)) is not None:
            _refuse(reply, 400, refusal)
        else:
            wire = _OllamaWire(name, body)
            if body.get("messages"):
                await self.generate(_call(body), wire, reply)
            else:
                _send(reply, wire.message(Part(), done_reason="load", done=True))


class _OllamaWire(Wire):
    stream_type = "application/x-ndjson"

    def __init__(self, model: str, body: dict[str, Any]) -> None:
        self._model = model
        self._logprobs = bool(body.get("logprobs"))
        self._top = body.get("top_logprobs") or 0
        self._started = monotonic_ns()

    def part(self, part: Part) -> bytes:
        return _line(self.message(part, done=False))

    def end(self, end: End) -> bytes:
        return _line(self.message(Part(), done=True, **self._closing(end)))

    def whole(self, parts: list[Part], end: End) -> bytes:
        joined = Part(
            text="".join(part.text for part in parts),
            tool_calls=tuple(call for part in parts for call in part.tool_calls),
            tokens=tuple(token for part in parts for token in part.tokens),
        )
        return _json(self.message(joined, done=True, **self._closing(end)))

    def error(self, status: int, message: str) -> bytes:
        return _json({"error": message})

    def error_in_stream(self, message: str) -> bytes:
        return _line({"error": message})

    def message(self, part: Part, **fields: Any) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": part.text}
        if part.tool_calls:
            message["tool_calls"] = [{"function": {"name": name, "arguments": args}} for name, args in part.tool_calls]
        answer = {"model": self._model, "created_at": _now(), "message": message, **fields}
        if self._logprobs and part.tokens:
            answer["logprobs"] = [self._logprob(token) for token in part.tokens]
        return answer

    def _logprob(self, token: FakeToken) -> dict[str, Any]:
        entry = _token(token.text, token.logprob)
        return {**entry, "top_logprobs": [_token(*other) for other in token.top[: self._top]]} if self._top else entry

    def _closing(self, end: End) -> dict[str, Any]:
        took = monotonic_ns() - self._started
        return {
            "done_reason": "length" if end.finish == "length" else "stop",
            "total_duration": took,
            "load_duration": 0,
            "prompt_eval_count": end.prompt_tokens,
            "prompt_eval_duration": took // 2,
            "eval_count": end.completion_tokens,
            "eval_duration": took // 2,
        }


def _embed(name: str, body: dict[str, Any], reply: Reply) -> None:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [fake_embedding(text, body.get("dimensions") or 64) for text in texts]
    words = sum(len(text.split()) for text in texts)
    _send(reply, {"model": name, "embeddings": vectors, "total_duration": 1_000_000, "prompt_eval_count": words})


def _refusal(model: OllamaModel, body: dict[str, Any]) -> str | None:
    if not 0 <= (body.get("top_logprobs") or 0) <= 20:
        return "top_logprobs must be between 0 and 20"
    if body.get("tools") and "tools" not in model.capabilities:
        return f"registry.ollama.ai/library/{model.name} does not support tools"
    if body.get("think") and "thinking" not in model.capabilities:
        return f'"{model.name}" does not support thinking'
    return None


def _call(body: dict[str, Any]) -> ModelCall:
    options = body.get("options") or {}
    settings = {name: options[key] for key, name in _SETTINGS.items() if options.get(key) is not None}
    if settings.get("max_tokens", 0) < 0:
        del settings["max_tokens"]
    if body.get("logprobs"):
        settings |= {"logprobs": True, "top_logprobs": body.get("top_logprobs") or 0}
    schema = body.get("format")
    if isinstance(schema, dict):
        settings["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    elif schema == "json":
        settings["response_format"] = {"type": "json_object"}
    return ModelCall(
        request=body,
        messages=[_MESSAGES.get(m["role"], HumanMessage)(content=m.get("content") or "") for m in body["messages"]],
        settings=settings,
        stream=body.get("stream") is not False,
    )


def _listed(model: OllamaModel) -> dict[str, Any]:
    about = {"name": model.name, "model": model.name, "size": model.size, "digest": model.digest}
    return {**about, "modified_at": _now(), "details": _details(model)}


def _shown(model: OllamaModel) -> dict[str, Any]:
    return {
        "modelfile": f"FROM {model.name}\n",
        "parameters": model.parameters,
        "template": "{{ .Prompt }}",
        "details": _details(model),
        "model_info": {
            "general.architecture": model.family,
            f"{model.family}.context_length": model.context_length,
        },
        "capabilities": list(model.capabilities),
        "modified_at": _now(),
    }


def _details(model: OllamaModel) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family],
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization_level,
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _line(value: dict[str, Any]) -> bytes:
    return _json(value) + b"\n"


def _send(reply: Reply, value: dict[str, Any]) -> None:
    reply.send(200, _json(value))


def _refuse(reply: Reply, status: int, message: str) -> None:
    reply.send(status, _json({"error": message}))
