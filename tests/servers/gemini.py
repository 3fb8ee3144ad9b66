"""A loopback server that speaks the Gemini API's wire protocol, so that the real
`ChatGoogleGenerativeAI` can be tested.

Source of the wire form: https://ai.google.dev/api/generate-content and the types of the `google-genai` package.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from tests.servers.fake_answers import Backend, End, Faults, ModelCall, Part, fake_embedding
from tests.servers.loopback import LoopbackServer, RecordedRequest, Reply, Wire

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "safety": "SAFETY"}
_SETTINGS = {"maxOutputTokens": "max_tokens", "temperature": "temperature", "seed": "seed", "stopSequences": "stop"}
_DANGEROUS = {"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}


class GeminiServer(LoopbackServer):
    """The Gemini API in front of a backend.

    A scripted backend receives the request's JSON with the model's name added under "model". `FakeAnswer.finish` may
    be "safety" (the answer is withheld) or "prompt_blocked" (no candidate at all).
    """

    def __init__(
        self,
        backend: Backend,
        *,
        models: Sequence[str] | None = None,
        api_key: str | None = None,
        embeddings: Embeddings | None = None,
        faults: Faults | None = None,
        keep_alive: bool = False,
    ) -> None:
        """Serve any model name and key, or only those given."""
        super().__init__(backend, faults=faults, keep_alive=keep_alive)
        self._models = models
        self._api_key = api_key
        self._embeddings = embeddings

    async def respond(self, request: RecordedRequest, reply: Reply) -> None:
        """Answer one request."""
        key = request.headers.get("x-goog-api-key")
        target = re.fullmatch(r"/v1beta/models/([^/:]+):(\w+)", request.path)
        if key is None:
            _refuse(reply, 403, "Method doesn't allow unregistered callers (callers without established identity).")
        elif self._api_key is not None and key != self._api_key:
            _refuse(reply, 400, "API key not valid. Please pass a valid API key.")
        elif target is None or request.method != "POST":
            reply.send(404, b"", "text/html; charset=UTF-8")
        elif request.body is None:
            _refuse(reply, 400, "Invalid JSON payload received.")
        elif self._models is not None and target[1] not in self._models:
            _refuse(reply, 404, f"models/{target[1]} is not found for API version v1beta, or is not supported.")
        else:
            await self._about_a_model(target[1], target[2], request.body, reply)

    async def _about_a_model(self, model: str, method: str, body: dict[str, Any], reply: Reply) -> None:
        match method:
            case "generateContent" | "streamGenerateContent":
                if not body.get("contents"):
                    _refuse(reply, 400, "* GenerateContentRequest.contents: contents is not specified")
                    return
                call = _call(model, body, stream=method == "streamGenerateContent")
                await self.generate(call, _GeminiWire(model), reply)
            case "countTokens":
                inner = body.get("generateContentRequest", body)
                tokens = self._tokens(" ".join(str(message.content) for message in _messages(inner)))
                details = [{"modality": "TEXT", "tokenCount": tokens}]
                reply.send(200, _json({"totalTokens": tokens, "promptTokensDetails": details}))
            case "batchEmbedContents":
                vectors = [await self._embed(item) for item in body["requests"]]
                reply.send(200, _json({"embeddings": [{"values": vector} for vector in vectors]}))
            case _:
                reply.send(404, b"", "text/html; charset=UTF-8")

    def _tokens(self, text: str) -> int:
        return self._backend.get_num_tokens(text) if isinstance(self._backend, BaseChatModel) else len(text.split())

    async def _embed(self, item: dict[str, Any]) -> list[float]:
        size = item.get("outputDimensionality")
        if self._embeddings is None:
            return fake_embedding(_text(item["content"]), size or 64)
        return (await self._embeddings.aembed_query(_text(item["content"])))[:size]


class _GeminiWire(Wire):
    stream_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._model = model

    def part(self, part: Part) -> bytes:
        return _event(self._answer({"content": {"parts": _parts([part]), "role": "model"}, "index": 0}))

    def end(self, end: End) -> bytes:
        return _event(self._closing([], end))

    def whole(self, parts: list[Part], end: End) -> bytes:
        return _json(self._closing(parts, end))

    def error(self, status: int, message: str) -> bytes:
        return _json(_error(status, message))

    def error_in_stream(self, message: str) -> bytes:
        return _event(_error(500, message))

    def _answer(self, *candidates: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {"candidates": list(candidates), **fields, "modelVersion": self._model, "responseId": "fake-response"}

    def _closing(self, parts: list[Part], end: End) -> dict[str, Any]:
        usage = {
            "promptTokenCount": end.prompt_tokens,
            "candidatesTokenCount": end.completion_tokens,
            "thoughtsTokenCount": end.thinking_tokens,
            "cachedContentTokenCount": end.cached_tokens,
            "totalTokenCount": end.prompt_tokens + end.completion_tokens + end.thinking_tokens,
        }
        usage = {name: tokens for name, tokens in usage.items() if tokens}
        if end.finish == "prompt_blocked":
            blocked = self._answer(promptFeedback={"blockReason": "SAFETY", "safetyRatings": [_DANGEROUS]})
            del blocked["candidates"]
            return {**blocked, "usageMetadata": usage}
        candidate: dict[str, Any] = {"finishReason": _FINISH[end.finish], "index": 0}
        if end.finish == "safety":
            candidate["safetyRatings"] = [_DANGEROUS]
        else:
            # The API leaves `parts` out where there is nothing to say, and the role stays.
            candidate["content"] = {"parts": _parts(parts), "role": "model"} if parts else {"role": "model"}
        return self._answer(candidate, usageMetadata=usage)


def _parts(parts: list[Part]) -> list[dict[str, Any]]:
    thinking, text = "".join(part.thinking for part in parts), "".join(part.text for part in parts)
    calls = [call for part in parts for call in part.tool_calls]
    return [
        *([{"text": thinking, "thought": True}] if thinking else []),
        *([{"text": text}] if text else []),
        *({"functionCall": {"name": name, "args": args}} for name, args in calls),
    ]


def _call(model: str, body: dict[str, Any], *, stream: bool) -> ModelCall:
    config = _camel(body.get("generationConfig") or {})
    settings = {name: config[key] for key, name in _SETTINGS.items() if config.get(key) is not None}
    schema = config.get("responseJsonSchema") or _json_schema(config.get("responseSchema"))
    if schema:
        settings["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    elif config.get("responseMimeType") == "application/json":
        settings["response_format"] = {"type": "json_object"}
    return ModelCall(
        request={**body, "model": model},
        messages=_messages(body),
        settings=settings,
        stream=stream,
        think=bool(_camel(config.get("thinkingConfig") or {}).get("includeThoughts")),
    )


def _camel(fields: dict[str, Any]) -> dict[str, Any]:
    """Field names as the API documents them; it reads snake_case as well, which the client sends in places."""
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), name): value for name, value in fields.items()}


def _messages(body: dict[str, Any]) -> list[BaseMessage]:
    turns = [(AIMessage if turn.get("role") == "model" else HumanMessage, turn) for turn in body["contents"]]
    system = body.get("systemInstruction")
    messages: list[BaseMessage] = [SystemMessage(_text(system))] if system else []
    return [*messages, *(kind(_text(turn)) for kind, turn in turns)]


def _text(content: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content["parts"])


def _json_schema(schema: Any) -> Any:
    """Google's own schema form (upper-case types, `nullable`) as JSON Schema."""
    if isinstance(schema, list):
        return [_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    apart = {"propertyOrdering", "nullable", "properties"}
    plain = {key: _json_schema(value) for key, value in schema.items() if key not in apart}
    if "properties" in schema:
        plain["properties"] = {name: _json_schema(field) for name, field in schema["properties"].items()}
    if "type" in plain:
        plain["type"] = schema["type"].lower()
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\r\n\r\n"


def _refuse(reply: Reply, status: int, message: str) -> None:
    reply.send(status, _json(_error(status, message)))
