"""Progress on standard error: a bar with the time left, or a plain line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from langchain_pld.cli.printing import PIPE_WIDTH
from langchain_pld.cli.spending import money

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Task, TaskID

    from langchain_pld.distillation.run.progress import Progress
    from langchain_pld.models.fetch import FetchPhase

__all__ = ["StepBars"]

_EVERY_S = 15.0


class StepBars:
    """The steps of a long command, one after the other.

    A running step is a bar with the time left; a finished one leaves a line with the time it took. Where standard
    error is no terminal, a running step is a line each fifteen seconds.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        if not self._console.is_terminal:
            # As on standard output: a log file has room for all columns, and is not as wide as a screen was.
            self._console.width = PIPE_WIDTH
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[spent]}"),
            console=self._console,
            get_time=time.monotonic,
            disable=not self._console.is_terminal,
            # Standard output carries results, which must not end up among the bars.
            redirect_stdout=False,
            # Steps of a slow model take seconds each: a short window would see none of them.
            speed_estimate_period=300,
        )
        self._running: dict[str, TaskID] = {}
        self._last_finished: str | None = None
        self._spent = ""
        self._idle_since = self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task_id in self._running.values():
            self._bars.update(task_id, visible=False)
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Print a table above the bars."""
        self._console.print(what)

    def wait(self, step: str) -> None:
        """Show that a step has begun of which nothing can be counted yet; it ends when the next step shows itself."""
        self._task(step, None)
        if not self._console.is_terminal:
            self.say(f"{step} …")

    def update(self, step: str, done: int, total: int) -> None:
        """Show how far a step is; it is over when `done` reaches `total`."""
        if done >= total and step == self._last_finished and step not in self._running:
            return
        task = self._task(step, total)
        self._bars.update(task.id, completed=done, total=total)
        if done >= total:
            self.say(f"{step}: {done}/{total} in {_clock(task.elapsed)}{self._spent and f', {self._spent}'}")
            self._bars.remove_task(self._running.pop(step))
            self._last_finished, self._idle_since = step, time.monotonic()
        elif not self._console.is_terminal and time.monotonic() - self._said >= _EVERY_S:
            self._said = time.monotonic()
            left = "" if task.time_remaining is None else f", about {_clock(task.time_remaining)} left"
            self.say(f"{step}: {done}/{total}{left}{self._spent and f', {self._spent}'}")

    def counting(self, step: str) -> Callable[[int, int], None]:
        """A callback for one step, taking units done and units in all."""
        return lambda done, total: self.update(step, done, total)

    def fetching(self, name: str) -> Callable[[int, int, FetchPhase], None]:
        """A callback for fetching a model: bytes done, bytes in all, phase."""

        def show(done: int, total: int, phase: FetchPhase) -> None:
            megabytes = -(-total // 1_000_000)
            self.update(f"{phase} {name} (MB)", megabytes if done >= total else done // 1_000_000, megabytes)

        return show

    def distilling(self, progress: Progress) -> None:
        """The callback of a distillation run: steps become bars with the cost so far, a step's note a line."""
        if progress.cost is not None:
            self._spent = f"{money(progress.cost)} USD so far"
            for task_id in self._running.values():
                self._bars.update(task_id, spent=self._spent)
        elif progress.note:
            # A step that was cut short, e.g. a try that was raced out, ends here; the next one begins.
            for task_id in self._running.values():
                self._bars.remove_task(task_id)
            self._running.clear()
            self._idle_since = time.monotonic()
            prefix = f"{progress.node}: "
            self.say(prefix + progress.note.removeprefix(prefix))
        elif progress.total:
            self.update(f"{progress.node}: {progress.step}", progress.done, progress.total)

    def _task(self, step: str, total: int | None) -> Task:
        """The bar of a step, begun if need be; a new step takes the place of one that was only waited for."""
        if step not in self._running:
            for task in self._bars.tasks:
                if task.total is None:
                    self._bars.remove_task(self._running.pop(task.description))
            self._running[step] = self._bars.add_task(step, total=total, spent=self._spent)
            # The first news of a step comes when its first unit is done: it began when the one before it ended.
            self._bar(step).start_time = self._idle_since
            self._said = time.monotonic()
        return self._bar(step)

    def _bar(self, step: str) -> Task:
        return next(task for task in self._bars.tasks if task.id == self._running[step])


def _clock(seconds: float | None) -> str:
    minutes, rest = divmod(round(seconds or 0.0), 60)
    return f"{minutes}:{rest:02}"
