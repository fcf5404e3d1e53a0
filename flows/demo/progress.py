"""What a demo shows while it works: progress bars, and each phase with its seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flows.steps import T
from registry.models import RetrainRun


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description:<34}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextmanager
def counting(console: Console, title: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar that every call of the yielded function moves on by one."""
    with _bar(console) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda: bar.advance(task)


class RichSteps:
    """The steps of a flow with a bar for the training; reports go to the page at the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self.losses: list[float] = []

    def run(self, name: str, step: Callable[[], T], *, retries: int = 0) -> T:  # noqa: ARG002
        """Carry out `step`, under a bar where it is the training."""
        if name != "train":
            return step()
        with _bar(self._console) as bar:
            self._bar = bar
            bar.add_task("training on Ray Train", total=100, note="starting workers")
            return step()

    def abandoned(self, run: RetrainRun) -> None:
        """Say so."""
        self._console.print(f"  training run {run.id}: {run.reason}")

    def progress(self, percent: float, note: str) -> None:
        """Move the training's bar."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=round(percent), note=note)

    def table(self, key: str, markdown: str) -> None:
        """The page at the end shows what the tables say."""

    def image(self, key: str, data_uri: str, description: str) -> None:
        """The page at the end has plots of its own."""


class Phases:
    """Adds up the seconds of named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = time.monotonic()

    @property
    def total(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the block's time to `name`."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start
