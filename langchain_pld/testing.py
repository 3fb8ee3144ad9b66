"""A contract for Runnables that return verdicts; subclass it in your tests.

```python
class TestMyClassifier(VerdictRunnableTests):
    def runnable(self) -> Runnable[Any, Verdict]:
        return PLDClassifier.from_artifact("mood.pld.json", student=my_fake_model())

    def inputs(self) -> list[Any]:
        return ["What a day!", "He is gone."]
```

pytest collects the inherited tests. They need no plugin for async tests: each coroutine runs in an event loop of its
own.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableSerializable

from langchain_pld.verdict import Verdict

__all__ = ["VerdictRunnableTests"]


class VerdictRunnableTests(ABC):
    """The promises of every Runnable that returns verdicts, one test each."""

    at_once: int = 100
    """Inputs in flight in the test that verdicts do not mix; use fewer for a slow model."""
    asks_a_model: bool = True
    """Whether a chat model is called; its run must then be a child of the Runnable's."""
    configurable: tuple[str, Any] | None = None
    """A configurable field, and a value for it that changes no verdict."""
    unusable: Any = object()
    """An input that cannot be classified."""

    @abstractmethod
    def runnable(self) -> Runnable[Any, Verdict]:
        """A new Runnable; it must always return the same verdict for the same input."""

    @abstractmethod
    def inputs(self) -> Sequence[Any]:
        """At least two inputs that can be classified, with different verdicts."""

    def test_every_way_of_calling_gives_the_same_verdict(self) -> None:
        """Invoke, batch, the last chunk of a stream and their async forms agree."""
        runnable, inputs = self.runnable(), list(self.inputs())
        expected = [runnable.invoke(value) for value in inputs]
        assert all(isinstance(verdict, Verdict) for verdict in expected), "invoke must return a Verdict"
        assert expected[0] != expected[1], "inputs() need different verdicts, or mixing would go unseen"
        assert runnable.batch(inputs) == expected, "batch differs from invoke"
        assert [list(runnable.stream(value))[-1] for value in inputs] == expected, "stream differs from invoke"
        assert dict(runnable.batch_as_completed(inputs)) == dict(enumerate(expected)), "batch_as_completed differs"

        async def awaited() -> None:
            assert [await runnable.ainvoke(value) for value in inputs] == expected, "ainvoke differs from invoke"
            assert await runnable.abatch(inputs) == expected, "abatch differs from invoke"
            for value, verdict in zip(inputs, expected, strict=True):
                parts = [part async for part in runnable.astream(value)]
                assert parts[-1] == verdict, "astream differs from invoke"

        asyncio.run(awaited())

    def test_callbacks_tags_and_metadata_are_passed_on(self) -> None:
        """The config reaches the Runnable's run and the runs of the models it asks."""
        runnable, value = self.runnable(), self.inputs()[0]

        for how in ("invoke", "ainvoke"):
            spy = _Spy()
            config: RunnableConfig = {
                "callbacks": [spy],
                "tags": ["contract"],
                "metadata": {"tenant": "t1"},
                "run_name": "judge",
            }
            if how == "invoke":
                runnable.invoke(value, config)
            else:
                asyncio.run(runnable.ainvoke(value, config))
            assert spy.chains, f"{how}: no run was reported to the callbacks"
            assert spy.chains[0].get("name") == "judge", f"{how}: run_name was not used"
            for run in spy.chains[:1] + spy.models:
                assert "contract" in (run.get("tags") or ()), f"{how}: tags were lost"
                assert (run.get("metadata") or {}).get("tenant") == "t1", f"{how}: metadata was lost"
            if self.asks_a_model:
                assert spy.models, f"{how}: the model's run was not reported to the callbacks"
                assert all(run.get("parent_run_id") for run in spy.models), f"{how}: the model's run has no parent"

    def test_it_works_inside_a_running_loop(self) -> None:
        """The sync form may be called while an event loop is running."""
        runnable, value = self.runnable(), self.inputs()[0]
        expected = runnable.invoke(value)

        async def inside() -> tuple[Verdict, Verdict]:
            return runnable.invoke(value), await runnable.ainvoke(value)

        assert asyncio.run(inside()) == (expected, expected), "the verdict differs inside a running loop"

    def test_many_at_once_never_mix(self) -> None:
        """Each input gets its own verdict, in order, with threads and with tasks."""
        runnable, inputs = self.runnable(), list(self.inputs())
        expected = [runnable.invoke(value) for value in inputs]
        many = [inputs[index % len(inputs)] for index in range(self.at_once)]
        wanted = [expected[index % len(inputs)] for index in range(self.at_once)]
        assert runnable.batch(many, {"max_concurrency": 16}) == wanted, "batch mixed verdicts"

        async def awaited() -> list[Verdict]:
            return await runnable.abatch(many)

        assert asyncio.run(awaited()) == wanted, "abatch mixed verdicts"

    def test_one_unusable_input_spoils_no_other(self) -> None:
        """With `return_exceptions` the other inputs keep their verdicts; the bad one fails or is an exception."""
        runnable, inputs = self.runnable(), list(self.inputs())
        expected = [runnable.invoke(value) for value in inputs]
        mixed = [inputs[0], self.unusable, *inputs[1:]]

        async def awaited() -> list[Any]:
            return await runnable.abatch(mixed, return_exceptions=True)

        for results in (runnable.batch(mixed, return_exceptions=True), asyncio.run(awaited())):
            bad: Any = results[1]
            assert isinstance(bad, Exception) or bad.status == "failed", "an unusable input must never be decided"
            assert [results[0], *results[2:]] == expected, "an unusable input changed another's verdict"

    def test_schemas_describe_inputs_and_verdicts(self) -> None:
        """Input and output have JSON schemas; the output is a verdict."""
        runnable = self.runnable()
        assert runnable.OutputType is Verdict, "OutputType must be Verdict"
        output = runnable.get_output_jsonschema()
        assert {"status", "label", "failure"} <= set(output["properties"]), "the output schema is not a verdict's"
        json.dumps(runnable.get_input_jsonschema())

    def test_retry_and_fallbacks_keep_the_verdict(self) -> None:
        """`with_retry` and `with_fallbacks` can wrap it."""
        runnable, value = self.runnable(), self.inputs()[0]
        expected = runnable.invoke(value)
        assert runnable.with_retry(stop_after_attempt=2).invoke(value) == expected, "with_retry changed the verdict"
        wrapped = runnable.with_fallbacks([self.runnable()])
        assert wrapped.invoke(value) == expected, "with_fallbacks changed the verdict"

    def test_a_field_can_be_configured(self) -> None:
        """The field named by `configurable` can be set through the config."""
        runnable, value = self.runnable(), self.inputs()[0]
        if self.configurable is None:
            return
        name, setting = self.configurable
        assert isinstance(runnable, RunnableSerializable), "configurable_fields needs a RunnableSerializable"
        configured = runnable.configurable_fields(**{name: ConfigurableField(id="contract_field")})
        verdict = configured.invoke(value, {"configurable": {"contract_field": setting}})
        assert verdict == runnable.invoke(value), f"setting {name} changed the verdict"

    def test_it_can_be_described_for_a_trace(self) -> None:
        """`dumpd` returns JSON: the constructor form, or "not implemented" with the name of the class."""
        described = dumpd(self.runnable())
        json.dumps(described)
        assert described["type"] in {"constructor", "not_implemented"}, f"dumpd gave {described.get('type')!r}"
        assert described["id"], "the description does not name the class"

    def test_verdicts_survive_json(self) -> None:
        """A verdict written as JSON reads back equal."""
        runnable = self.runnable()
        for value in self.inputs():
            verdict = runnable.invoke(value)
            assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict, "the verdict changed through JSON"


class _Spy(BaseCallbackHandler):
    """Keeps the name, parent, tags and metadata of each run."""

    raise_error = True

    def __init__(self) -> None:
        self.chains: list[dict[str, Any]] = []
        self.models: list[dict[str, Any]] = []

    def on_chain_start(self, serialized: dict[str, Any], inputs: Any, **run: Any) -> None:  # noqa: ARG002
        self.chains.append(run)

    def on_chat_model_start(self, serialized: dict[str, Any], messages: list[Any], **run: Any) -> None:  # noqa: ARG002
        self.models.append(run)
