"""Progress bars with time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from langchain_pld.distillation.progress import Progress
    from langchain_pld.models.fetch import FetchPhase

__all__ = ["counting", "fetching", "run_bars"]


@contextmanager
def run_bars() -> Iterator[Callable[[Progress], None]]:
    """A bar for each step of a distillation run; a step's note is printed when it is done."""
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def show(progress: Progress) -> None:
            if progress.note:
                bars.console.print(f"[dim]{progress.note}[/dim]", highlight=False)
                return
            name = f"{progress.node}: {progress.step}"
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=progress.total)
            bars.update(tasks[name], completed=progress.done, total=progress.total)

        yield show


@contextmanager
def counting(description: str) -> Iterator[Callable[[int, int], None]]:
    """One bar for a count of rows."""
    with _bars() as bars:
        task = bars.add_task(description, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def fetching(name: str) -> Iterator[Callable[[int, int, FetchPhase], None]]:
    """A bar for each phase of fetching a model, in bytes."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console()) as bars:
        tasks: dict[str, TaskID] = {}

        def show(done: int, total: int, phase: FetchPhase) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(f"{phase} {name}", total=total)
            bars.update(tasks[phase], completed=done, total=total)

        yield show


def _bars() -> Bars:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("took"),
        TimeElapsedColumn(),
        console=_console(),
    )


def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True)
