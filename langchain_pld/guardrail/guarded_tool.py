"""A tool that checks its arguments again when called, because other middleware may have changed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from typing_extensions import override

from langchain_pld.guardrail.nostream import nostream_config
from langchain_pld.steps import Steps, arun_steps, run_steps

__all__ = ["GuardedTool"]


class GuardedTool(BaseTool):
    """A tool behind a guard."""

    inner: BaseTool
    """The tool."""
    check: Callable[[ToolCall], Steps[ToolMessage | None]]
    """Checks a call; gives what takes the place of its result where it must not run."""
    nostream: bool
    """Whether its result is still to be checked, so that no stream of events may show it."""

    @classmethod
    def of(
        cls, tool: BaseTool, check: Callable[[ToolCall], Steps[ToolMessage | None]], *, nostream: bool
    ) -> GuardedTool:
        """Put a tool behind a guard; to everybody else it looks like the tool."""
        same = {name: getattr(tool, name) for name in BaseTool.model_fields}
        return cls(**same, inner=tool, check=check, nostream=nostream)

    @override
    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        refusal = run_steps(self.check(self._call(input)))
        return self.inner.invoke(input, self._config(config), **kwargs) if refusal is None else refusal

    @override
    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        refusal = await arun_steps(self.check(self._call(input)))
        return await self.inner.ainvoke(input, self._config(config), **kwargs) if refusal is None else refusal

    def _config(self, config: Any) -> Any:
        return nostream_config(config) if self.nostream else config

    def _call(self, input: Any) -> ToolCall:  # noqa: A002
        """The call without what LangGraph added to its arguments: state, Store and runtime."""
        is_call = isinstance(input, dict) and "args" in input and input.get("type") == "tool_call"
        call = input if is_call else {"args": input, "id": ""}
        # A schema in JSON has no place for what LangGraph adds.
        full = set(getattr(self.inner.get_input_schema(), "model_fields", ()))
        visible = set(getattr(self.inner.tool_call_schema, "model_fields", full))
        added = (full - visible) | set(getattr(self.inner, "_injected_args_keys", ()))
        args = call["args"]
        if isinstance(args, dict):
            args = {name: value for name, value in args.items() if name not in added}
        return ToolCall(name=self.inner.name, args=args, id=call.get("id"), type="tool_call")

    @override
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        msg = f"the tool {self.name} stands behind a guard and is called with invoke or ainvoke"
        raise NotImplementedError(msg)
