"""The errors of the package.

```
PLDError
├── InputError (also ValueError)      something passed in is wrong
│   ├── TaskError                     a task file or definition
│   ├── ExampleError                  a labelled row or its file
│   └── ArtifactError                 a *.pld.json file
├── ModelSetupError                   a model cannot be fetched or loaded
│   └── MissingExtraError (also ImportError)   an optional package is not installed
├── ModelCallError                    the embedded model could not answer; see langchain_pld.models.errors
├── StudentError                      the student gave no readable answer
├── AnswersPendingError               an offline teacher has not answered yet
├── GuardrailError                    a guard refused and was set to raise; see langchain_pld.guardrail.guard
└── DistillationError                 a run cannot start or continue
```
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_pld.verdict import Failure

__all__ = [
    "AnswersPendingError",
    "ArtifactError",
    "DistillationError",
    "ExampleError",
    "InputError",
    "MissingExtraError",
    "ModelSetupError",
    "PLDError",
    "StudentError",
    "TaskError",
]


class PLDError(RuntimeError):
    """Base class of every error that the package raises on purpose.

    It is a `RuntimeError` because LangGraph's server passes its message on to clients; of other errors they learn only
    that there was one.
    """


class InputError(PLDError, ValueError):
    """Something passed in cannot be used."""


class TaskError(InputError):
    """A task definition or task file is wrong."""


class ExampleError(InputError):
    """A labelled example or its file is wrong."""


class ArtifactError(InputError):
    """An artifact file is missing, damaged, changed by hand or of another schema."""


class ModelSetupError(PLDError):
    """A model cannot be found, fetched, verified or loaded."""


class MissingExtraError(ModelSetupError, ImportError):
    """An optional package is not installed; the message names the extra to install."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """The error for a package that an extra installs."""
        return cls(f'the package {package!r} is not installed; run: pip install "langchain-pld[{extra}]"')

    @classmethod
    def check(cls, extra: str, **packages: str) -> None:
        """Check that the modules of an extra can be imported.

        Args:
            extra: The extra.
            **packages: Module name to package name.

        Raises:
            MissingExtraError: A package is not installed.
        """
        for module, package in packages.items():
            if find_spec(module) is None:
                raise cls.of(package, extra)


class AnswersPendingError(PLDError):
    """An offline teacher has not answered all questions yet; nothing has failed.

    Attributes: questions: The open questions, each a `langchain_pld.models.batch_rows.Question`; empty once a run has
        written them into its request file.
    """

    def __init__(self, message: str, questions: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.questions = tuple(questions)


class StudentError(PLDError):
    """The student gave no verdict, and a failed one cannot be returned.

    Attributes: failure: What went wrong, as in a failed verdict.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


class DistillationError(PLDError):
    """A distillation run cannot start or continue; paid work is kept."""
