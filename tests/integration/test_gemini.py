"""Gemini as the teacher: the real client against a loopback server."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_google_genai import ChatGoogleGenerativeAI

from langchain_pld import DistilledPrompt, adistill
from langchain_pld.distillation.plan import PLANS
from langchain_pld.errors import DistillationError
from tests.fakes import FakeChatModel
from tests.servers.fake_answers import FakeAnswer
from tests.servers.gemini import GeminiServer
from tests.teams import TASK, gemini_script, rows, student_script

PLAN = PLANS["light"].model_copy(
    update={"train_examples": 9, "rules_per_label": 1, "trials": 1, "rounds": 0, "ceiling": None}
)


async def run(server: GeminiServer) -> DistilledPrompt:
    # One attempt of the client's own: what is tried again here is tried by the distillation.
    teacher = ChatGoogleGenerativeAI(model="gemini-fake", base_url=server.url, api_key="test", max_retries=1)
    return await adistill(
        TASK,
        train=rows("train", 12),
        validation=rows("validation", 60),
        teacher=teacher,
        student=FakeChatModel(script=student_script),
        effort=PLAN,
    )


async def test_gemini_teaches_a_whole_run_and_its_tokens_are_in_the_ledger() -> None:
    with GeminiServer(gemini_script) as server:
        artifact = await run(server)
        asked = server.count(":generateContent")
    assert artifact.finish_reason == "converged"
    assert {rule.label for rule in artifact.rules} == set(TASK.label_names)
    assert artifact.teacher is not None
    assert artifact.teacher.spec == "google_genai:gemini-fake"
    lines = [line for line in artifact.ledger if line.model == "google_genai:gemini-fake"]
    assert {line.node: line.calls for line in lines}["generate"] == 9
    assert sum(line.calls for line in lines) == asked
    assert sum(line.input_tokens for line in lines) == 200 * asked
    assert all(line.output_tokens > 0 and line.seconds > 0 and not line.failures for line in lines)


async def test_gemini_is_sent_the_schema_and_the_text_as_data() -> None:
    with GeminiServer(gemini_script) as server:
        await run(server)
        bodies = [request.body for request in server.requests if request.body]
    properties = bodies[0]["generationConfig"]["responseJsonSchema"]["properties"]
    assert {"reason", "condition"} <= set(properties)
    assert bodies[0]["contents"][0]["parts"][0]["text"].startswith("<<<")
    assert "validation number" not in str(bodies)


async def test_a_rate_limit_is_waited_out() -> None:
    left = 1

    def limited(request: dict[str, Any]) -> FakeAnswer:
        nonlocal left
        left -= 1
        return FakeAnswer(status=429, error="quota") if left >= 0 else gemini_script(request)

    with GeminiServer(limited) as server:
        artifact = await run(server)
        asked = server.count(":generateContent")
    lines = [line for line in artifact.ledger if line.model == "google_genai:gemini-fake"]
    assert artifact.finish_reason == "converged"
    # Each try is booked: the service counts it as well.
    assert sum(line.failures for line in lines) == 1
    assert asked == sum(line.calls for line in lines)


@pytest.mark.parametrize("content", ["I would rather not.", '{"reason": "no condition"}', '["condition"]'])
async def test_a_teacher_that_never_fits_the_schema_ends_the_run(content: str) -> None:
    with (
        GeminiServer(FakeAnswer(content=content)) as server,
        pytest.raises(DistillationError, match=r"9 of 9 calls to the teacher google_genai:gemini-fake failed.*schema"),
    ):
        await run(server)
    assert server.count(":generateContent") == 18  # each question once more, with what was wrong


async def test_a_refused_key_ends_the_run_with_the_reason() -> None:
    with (
        GeminiServer(FakeAnswer(status=403, error="no")) as server,
        pytest.raises(DistillationError, match=r"refused the key for google_genai:gemini-fake.*check the API key"),
    ):
        await run(server)
    assert server.count(":generateContent") == 1
