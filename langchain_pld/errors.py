"""The one error family of the package.

```
PLDError
├── InputError (also ValueError)      something handed in is wrong: say where and what to do
│   ├── TaskError                     a task file or definition
│   ├── ExampleError                  a labelled row or its file
│   └── ArtifactError                 a *.pld.json file
├── ModelSetupError                   a model cannot be had or loaded
│   └── MissingExtraError (also ImportError)   an optional package is not installed
├── ModelCallError                    the embedded model could not answer; see langchain_pld.models.errors
├── StudentError                      the student gave no readable answer
├── AnswersPendingError               a teacher that answers later has not answered yet
├── GuardrailError                    a guard refused and was told to raise; see langchain_pld.guardrail.guard
└── DistillationError                 a run cannot start or go on
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
    """Base class: catch it to catch every error that the package raises on purpose.

    LangGraph's server tells its clients what a `RuntimeError` says; of a kind of error that it does not know, only that
    there was one.
    """


class InputError(PLDError, ValueError):
    """Something handed in cannot be used."""


class TaskError(InputError):
    """A task definition or task file is wrong."""


class ExampleError(InputError):
    """A labelled example or the file that it stands in is wrong."""


class ArtifactError(InputError):
    """An artifact file is missing, damaged, changed by hand or of another schema."""


class ModelSetupError(PLDError):
    """A model cannot be found, fetched, verified or loaded."""


class MissingExtraError(ModelSetupError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str) -> MissingExtraError:
        """Build the error for `package`, which the extra `extra` installs."""
        return cls(f'the package {package!r} is not installed; run: pip install "langchain-pld[{extra}]"')

    @classmethod
    def check(cls, extra: str, **packages: str) -> None:
        """Check that what an extra installs can be imported.

        Args:
            extra: The extra.
            **packages: Name of a module to name of its package.

        Raises:
            MissingExtraError: A package is not installed.
        """
        for module, package in packages.items():
            if find_spec(module) is None:
                raise cls.of(package, extra)


class AnswersPendingError(PLDError):
    """A teacher that answers later was asked, and answers are still missing; nothing has failed.

    Attributes:
        questions: The questions without an answer, each a `langchain_pld.models.batch_rows.Question`; none where a run
            has written them into its request file.
    """

    def __init__(self, message: str, questions: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.questions = tuple(questions)


class StudentError(PLDError):
    """The student gave no verdict, in a place where a failed verdict cannot be returned.

    Attributes:
        failure: What went wrong, as it would stand in a failed verdict.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind}: {failure.message}")
        self.failure = failure


class DistillationError(PLDError):
    """A distillation run cannot start or cannot go on; paid work is kept."""
