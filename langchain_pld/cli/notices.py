"""Warnings and log records as plain lines on standard error."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

__all__ = ["plain_notices"]


@contextmanager
def plain_notices(*, verbose: bool) -> Iterator[None]:
    """Show warnings meant for users, and the package's log: warnings only, or all of it.

    Args:
        verbose: Show the whole log.
    """
    logger = logging.getLogger("langchain_pld")
    level, propagate = logger.level, logger.propagate
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)
    logger.propagate = False
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _show
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate


class _StandardError(logging.Handler):
    """Looks `sys.stderr` up at each record, since progress bars put themselves in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if issubclass(category, UserWarning):
        typer.echo(f"warning: {message}", err=True)
