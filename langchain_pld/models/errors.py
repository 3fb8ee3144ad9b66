"""What goes wrong in a call to the embedded model.

Each error is a `PLDError` and LangChain's error for the same condition, so code that handles either works. They stand
here and not in `langchain_pld.errors`, since that file must load without LangChain.

```
ModelCallError (PLDError, ModelError)      the model could not answer
├── BadCallError (ModelInvalidRequestError)    the request cannot be served: options, roles, schema
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
    """The request cannot be served as it is: a wrong option, role, content or schema."""


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
