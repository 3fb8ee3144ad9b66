"""A loopback server that speaks the Gemini API's wire protocol, so that the real
`ChatGoogleGenerativeAI` can be tested.

Source of the wire form: https://ai.google.dev/api/generate-content and the types of the `google-genai` package.
"""

import json
import re
from typing import Any

from tests.servers.fake_answers import Backend, End, Faults, ModelCall, Part
from tests.servers.loopback import LoopbackServer, RecordedRequest, Reply, Wire

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}


class GeminiServer(LoopbackServer):
    """The Gemini API in front of a scripted backend, which receives the request's JSON with the model's name added.

    Args:
        backend: What it answers.
        api_key: The only key that it takes; any if None.
        faults: Latency and failures by rate.
    """

    def __init__(self, backend: Backend, *, api_key: str | None = None, faults: Faults | None = None) -> None:
        super().__init__(backend, faults=faults)
        self._api_key = api_key

    async def respond(self, request: RecordedRequest, reply: Reply) -> None:
        """Answer one request."""
        target = re.fullmatch(r"/v1beta/models/([^/:]+):(generateContent|streamGenerateContent)", request.path)
        key = request.headers.get("x-goog-api-key")
        if key is None or self._api_key not in (None, key):
            _refuse(reply, 400, "API key not valid. Please pass a valid API key.")
        elif target is None or request.method != "POST" or request.body is None:
            _refuse(reply, 404, f"{request.path} is not found for API version v1beta, or is not supported.")
        else:
            config = request.body.get("generationConfig") or {}
            limit = config.get("maxOutputTokens", config.get("max_output_tokens"))
            call = ModelCall(
                request={**request.body, "model": target[1]},
                messages=(),
                settings={} if limit is None else {"max_tokens": limit},
                stream=target[2] == "streamGenerateContent",
            )
            await self.generate(call, _GeminiWire(target[1]), reply)


class _GeminiWire(Wire):
    stream_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._model = model

    def part(self, part: Part) -> bytes:
        return _event(self._answer({"content": {"parts": _parts([part]), "role": "model"}, "index": 0}))

    def end(self, end: End) -> bytes:
        return _event(self._whole([], end))

    def whole(self, parts: list[Part], end: End) -> bytes:
        return _json(self._whole(parts, end))

    def error(self, status: int, message: str) -> bytes:
        return _json(_error(status, message))

    def error_in_stream(self, message: str) -> bytes:
        return _event(_error(500, message))

    def _answer(self, candidate: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {"candidates": [candidate], **fields, "modelVersion": self._model, "responseId": "fake-response"}

    def _whole(self, parts: list[Part], end: End) -> dict[str, Any]:
        usage = {
            "promptTokenCount": end.prompt_tokens,
            "candidatesTokenCount": end.completion_tokens,
            "totalTokenCount": end.prompt_tokens + end.completion_tokens,
        }
        # The API leaves `parts` out where there is nothing to say, and the role stays.
        content = {"parts": _parts(parts), "role": "model"} if parts else {"role": "model"}
        reason = "MAX_TOKENS" if end.finish == "length" else "STOP"
        return self._answer({"content": content, "finishReason": reason, "index": 0}, usageMetadata=usage)


def _parts(parts: list[Part]) -> list[dict[str, Any]]:
    text = "".join(part.text for part in parts)
    calls = [call for part in parts for call in part.tool_calls]
    return [
        *([{"text": text}] if text else []),
        *({"functionCall": {"name": name, "args": args}} for name, args in calls),
    ]


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message, "status": _STATUS.get(status, "UNKNOWN")}}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + _json(value) + b"\r\n\r\n"


def _refuse(reply: Reply, status: int, message: str) -> None:
    reply.send(status, _json(_error(status, message)))
