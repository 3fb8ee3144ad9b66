"""Spans and metrics of checks, read back from OpenTelemetry's own in-memory exporters."""

from __future__ import annotations

from typing import Any

import pytest

from langchain_pld.errors import MissingExtraError
from langchain_pld.guardrail import GuardTelemetry
from tests.guardrail.factories import POLICY, answering, both, failed, guard, verdict

pytest.importorskip("opentelemetry.sdk")


async def test_each_check_is_a_span_and_is_counted() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader, tracing = InMemorySpanExporter(), InMemoryMetricReader(), TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    told = GuardTelemetry(tracer_provider=tracing, meter_provider=MeterProvider([reader]))
    policy = POLICY.model_copy(update={"on_error": "escalate"})
    watch = [
        guard(verdict("sad"), name="one", telemetry=told),
        guard(failed("timeout"), name="two", policy=policy, escalate_to=answering(verdict("glad")), telemetry=told),
        guard(ValueError("the user's text"), name="three", telemetry=told),
    ]
    with tracing.get_tracer("app").start_as_current_span("turn") as turn:
        await both(watch, "the user's text")

    found = [span for span in spans.get_finished_spans() if span.name in {"guard one", "guard two", "guard three"}]
    assert len(found) == 6
    assert {span.parent.span_id for span in found if span.parent} == {turn.get_span_context().span_id}
    one = next(span for span in found if span.attributes and span.attributes["pld.guard"] == "one")
    assert one.attributes is not None
    expected = {"pld.outcome": "violation", "pld.action": "block", "pld.label": "sad", "pld.decided_by": "fake:student"}
    assert dict(one.attributes) | expected == dict(one.attributes)
    assert sorted(span.status.is_ok for span in found) == [False, False, True, True, True, True]
    assert "user's text" not in "".join(span.to_json() for span in found)

    data: Any = reader.get_metrics_data()
    metrics = {metric.name: metric.data.data_points for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    assert sum(point.value for point in metrics["pld.guard.checks"]) == 6
    assert sum(point.count for point in metrics["pld.guard.duration"]) == 6
    assert {point.attributes["pld.failure"]: point.value for point in metrics["pld.guard.failures"]} == {
        "timeout": 2,
        "unexpected": 2,
    }
    assert [point.value for point in metrics["pld.guard.escalations"]] == [2]


def test_without_the_extra_it_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry", None)
    with pytest.raises(MissingExtraError, match=r"langchain-pld\[otel\]"):
        GuardTelemetry()
