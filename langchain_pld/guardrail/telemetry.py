"""OpenTelemetry spans and metrics of checks; the application chooses and sets up the exporters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from langchain_pld.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from langchain_pld.guardrail.decision import Finding

__all__ = ["GuardTelemetry"]

_SCOPE = "langchain_pld.guardrail"


class GuardTelemetry:
    """What a guard tells OpenTelemetry: one span and a few measurements for each check, never any of the text.

    Metrics: `pld.guard.checks` by guard, stage, outcome, action and label; `pld.guard.duration` in seconds;
    `pld.guard.failures` by kind; `pld.guard.escalations`.
    The span is named after the guard (`guard chat`) and is a child of the current one.

    Args:
        tracer_provider: Where spans go; the global one when absent.
        meter_provider: Where measurements go; the global one when absent.

    Raises:
        MissingExtraError: OpenTelemetry's API is not installed.
    """

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtraError.of("opentelemetry-api", "otel") from error
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._error = trace.Status(trace.StatusCode.ERROR)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._checks = meter.create_counter("pld.guard.checks", "{check}", "Checks that were made.")
        self._duration = meter.create_histogram("pld.guard.duration", "s", "Time from input to decision.")
        self._failures = meter.create_counter("pld.guard.failures", "{check}", "Models that gave no verdict, by kind.")
        self._escalations = meter.create_counter("pld.guard.escalations", "{check}", "Checks that asked two models.")

    def record(self, finding: Finding) -> None:
        """Tell of one check, just after it.

        Args:
            finding: What the guard found.
        """
        where = {"pld.guard": finding.guard, "pld.stage": finding.stage}
        what = {**where, "pld.outcome": finding.outcome, "pld.action": finding.action, "pld.label": finding.label or ""}
        self._checks.add(1, what)
        self._duration.record(finding.latency_ms / 1000, {**where, "pld.outcome": finding.outcome})
        kinds = [verdict.failure.kind for verdict in finding.verdicts if verdict.failure is not None]
        for kind in kinds:
            self._failures.add(1, {**where, "pld.failure": kind})
        if len(finding.verdicts) > 1:
            self._escalations.add(1, where)
        self._span(finding, what, kinds)

    def _span(self, finding: Finding, attributes: dict[str, Any], kinds: list[Any]) -> None:
        now = time.time_ns()
        span = self._tracer.start_span(
            f"guard {finding.guard}", attributes=attributes, start_time=now - int(finding.latency_ms * 1e6)
        )
        last = finding.verdicts[-1] if finding.verdicts else None
        if last is not None:
            told = {
                "pld.artifact": last.artifact_id,
                "pld.confidence": last.confidence,
                "pld.decided_by": last.decided_by,
                "pld.input_tokens": last.usage.input_tokens,
                "pld.output_tokens": last.usage.output_tokens,
            }
            span.set_attributes({name: value for name, value in told.items() if value is not None})
        if kinds:
            span.set_attribute("pld.failure", kinds[-1])
        if finding.outcome == "error":
            span.set_status(self._error)
        span.end(now)
