"""Exit codes: how a command ends, and what it then says on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from langchain_pld.cli.notices import plain_notices
from langchain_pld.cli.printing import complain
from langchain_pld.errors import AnswersPendingError, InputError, ModelSetupError, PLDError

__all__ = ["BAD_INPUT", "CHECK_FAILED", "STOPPED", "WAITS", "ExitCodes", "report", "stoppable"]

CHECK_FAILED = 1
"""A check did not pass: a text has no verdict, a score is below the asked minimum, a run could not be finished."""
BAD_INPUT = 2
"""Bad use or bad input; typer ends with it on its own for unknown options and the like."""
WAITS = 3
"""A run waits for the answers of a teacher that answers later; nothing has failed."""
STOPPED = 130
"""Ctrl-C, as shells have it."""


class ExitCodes(TyperGroup):
    """The root command: turns what a command raises into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: The command did not end well; the reason has been said.
        """
        verbose = bool(ctx.params.get("verbose"))
        with plain_notices(verbose=verbose):
            try:
                return super().invoke(ctx)
            except (typer.Exit, typer.Abort, typer.TyperException, BrokenPipeError):
                raise
            except KeyboardInterrupt:
                complain("stopped")
                raise typer.Exit(STOPPED) from None
            except PLDError as error:
                raise typer.Exit(report(error)) from error
            except OSError as error:
                if error.filename is None or verbose:
                    raise
                complain(f"{error.filename}: {error.strerror}")
                raise typer.Exit(BAD_INPUT) from error
            except Exception as error:
                if verbose:
                    raise
                complain(f"unexpected {type(error).__name__}: {error}. For the traceback: pld -v …")
                raise typer.Exit(CHECK_FAILED) from error


def report(error: PLDError) -> int:
    """Say what an error means on standard error, and give the exit code that it has."""
    complain(str(error))
    if isinstance(error, AnswersPendingError):
        return WAITS
    return BAD_INPUT if isinstance(error, InputError | ModelSetupError) else CHECK_FAILED


@contextmanager
def stoppable(kept: Callable[[], str]) -> Iterator[None]:
    """Turn Ctrl-C in the block into exit code 130.

    Args:
        kept: Says what is kept of the work done so far.

    Raises:
        typer.Exit: Ctrl-C was pressed.
    """
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped; {kept()}")
        raise typer.Exit(STOPPED) from None
