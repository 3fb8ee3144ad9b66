"""Errors of calls to the embedded model.

Each is a `PLDError` and LangChain's error for the same condition, so code that handles either works. They are not in
`langchain_pld.errors`, which must load without LangChain.

```
ModelCallError (PLDError, ModelError)      the model could not answer
├── BadCallError (ModelInvalidRequestError)    the request is not supported: options, roles, schema
├── PromptTooLongError (ContextOverflowError)  the prompt does not fit the context
└── CallTimeoutError (ModelTimeoutError)       the time limit ran out
```
"""

from __future__ import annotations

from langchain_core.exceptions import ContextOverflowError, ModelError, ModelInvalidRequestError, ModelTimeoutError

from langchain_pld.errors import PLDError

__all__ = ["BadCallError", "CallTimeoutError", "ModelCallError", "PromptTooLongError"]


class ModelCallError(PLDError, ModelError):
    """The embedded model could not answer."""


class BadCallError(ModelCallError, ModelInvalidRequestError):
    """The request has an unsupported option, role, content or schema."""


class PromptTooLongError(ModelCallError, ContextOverflowError):
    """The prompt does not fit the context; nothing was cut and nothing was sent.

    Attributes:
        tokens: Length of the prompt, tokens.
        limit: Context of the model as loaded, tokens.
    """

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"the prompt has {tokens} tokens and the context holds {limit}, answer included; "
            "shorten the prompt or give a larger n_ctx"
        )
        self.tokens = tokens
        self.limit = limit


class CallTimeoutError(ModelCallError, ModelTimeoutError):
    """The call ran past its time limit and was stopped."""
