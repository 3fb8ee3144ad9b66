"""Asking models whose tokens nobody is to see in a stream: students, and models behind an output guard."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from typing import Any, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, set_config_context, var_child_runnable_config
from langchain_core.tracers.base import BaseTracer

from langchain_pld.steps import Call

__all__ = ["nostream_call", "nostream_config", "nostream_context"]


def nostream_config(config: RunnableConfig | None) -> RunnableConfig:
    """The config for asking a model whose tokens nobody is to see in a stream.

    What streams is taken out of the callbacks: handlers behind `stream_mode="messages"`, `astream_events` and
    `astream_log`; a handler of the user's own keeps everything but single tokens. Tracers stay as they are. The tag
    `nostream` tells LangGraph the same.

    Args:
        config: The config of the run that asks; that of the surrounding run when absent.
    """
    own = ensure_config(config)
    # These two would name the model's run.
    own.pop("run_id", None)
    own.pop("run_name", None)
    tags = own.get("tags") or []
    own["tags"] = [*tags, *({_NOSTREAM} - set(tags))]
    callbacks = own.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        muted = callbacks.copy()
        muted.handlers = _mute(callbacks.handlers)
        muted.inheritable_handlers = _mute(callbacks.inheritable_handlers)
        own["callbacks"] = muted
    else:
        own["callbacks"] = _mute(callbacks or [])
    return own


def nostream_context(config: RunnableConfig) -> contextvars.Context:
    """A context in which a model that is called without a config finds this one, made by `nostream_config`."""
    context = contextvars.copy_context()
    context.run(var_child_runnable_config.set, config)
    return context


def nostream_call(handler: Callable[[Any], Any], request: Any, config: RunnableConfig | None) -> Call:
    """A call of a middleware's handler whose models appear in no stream."""

    def call() -> Any:
        with set_config_context(nostream_config(config)) as context:
            return context.run(handler, request)

    async def acall() -> Any:
        token = var_child_runnable_config.set(nostream_config(config))
        try:
            return await handler(request)
        finally:
            var_child_runnable_config.reset(token)

    return Call(call, acall)


_NOSTREAM = "nostream"  # langgraph.constants.TAG_NOSTREAM, without importing langgraph


class _Muted:
    """Stands before a callback handler of the user's and keeps single tokens from it."""

    def __init__(self, handler: BaseCallbackHandler) -> None:
        self._handler = handler

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the token is the student's."""

    def on_stream_event(self, *args: Any, **kwargs: Any) -> None:
        """Nothing, for the same reason."""


def _mute(handlers: Sequence[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    # `tap_output_iter` is what LangChain itself knows a streaming handler by.
    kept = [handler for handler in handlers if not hasattr(handler, "tap_output_iter")]
    return [cast("BaseCallbackHandler", _Muted(handler)) if _hears_tokens(handler) else handler for handler in kept]


def _hears_tokens(handler: BaseCallbackHandler) -> bool:
    """Whether a handler has a method of its own for single tokens."""
    if isinstance(handler, BaseTracer | _Muted):
        return False
    methods = [getattr(handler, name, None) for name in ("on_llm_new_token", "on_stream_event")]
    return any(method is not None and getattr(method, "__module__", "") != _CORE for method in methods)


_CORE = "langchain_core.callbacks.base"
"""Where the methods that do nothing are."""
