"""Exit codes, and warnings as plain lines."""

from __future__ import annotations

import warnings

import typer

__all__ = ["BAD_INPUT", "CHECK_FAILED", "echo_warnings"]

CHECK_FAILED = 1
"""Exit code when a check did not pass: a failed verdict, a score below the asked minimum."""
BAD_INPUT = 2
"""Exit code for bad use or bad input; the command-line framework uses it for its own errors too."""


def echo_warnings() -> None:
    """Show the package's warnings as plain lines on standard error, without file and line."""

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if issubclass(category, UserWarning):
            typer.echo(f"warning: {message}", err=True)

    warnings.showwarning = show
