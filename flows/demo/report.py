"""The demo's page and summary file, made of what was measured."""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from flows.demo.results import Round, Score, Story
from flows.reports.plots import COLOURS, INK, STYLE, data_uri, new_figure, png

_environment = Environment(
    loader=PackageLoader("flows.demo", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_reports(story: Story, folder: Path, *, now: datetime) -> None:
    """Write `summary.json` and `report.html` to `folder`."""
    page = _environment.get_template("report.html").render(
        story=story,
        summary=story.to_json(),
        now=now,
        plots=[
            ("The climb", data_uri(climb_plot(story))),
            ("By target tool", data_uri(tools_plot(story))),
            *(
                (f"Round {turn.number}: the trial", data_uri(trial_plot(turn)))
                for turn in story.rounds
                if turn.looks
            ),
        ],
    )
    _write(folder / "report.html", page)
    _write(folder / "summary.json", json.dumps(story.to_json(), indent=2, ensure_ascii=False))


def print_story(story: Story, console: Console) -> None:
    """The table by round, and five requests before and after."""
    table = Table(title="What the loop did", title_justify="left", show_lines=True)
    for name in ("round", "version", "rated good", "accuracy", "decision", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name in ("round", "rated good"))
    table.add_row("0", "base model", *_cells(story.base), "", "")
    for turn in story.rounds:
        cells = (turn.version or "–", *_cells(turn.score), turn.decision, turn.reason)
        table.add_row(str(turn.number), *cells)
    console.print(table)
    for request, before, after in story.examples:
        comparison = Table(title=request, title_justify="left", title_style="bold")
        comparison.add_column("base model", ratio=1)
        comparison.add_column(story.champion or "base model", ratio=1)
        comparison.add_row(before, after)
        console.print(comparison)


def climb_plot(story: Story) -> bytes:
    """Share rated good and accuracy, round by round, of what each round trained."""
    scores = [(0, story.base)]
    scores += [(turn.number, turn.score) for turn in story.rounds if turn.score is not None]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 4.0, "Held-out requests, in words never seen in training")
        rounds = [number for number, _ in scores]
        for colour, label, values in (
            (COLOURS[0], "rated good", [found.rated_good for _, found in scores]),
            (COLOURS[2], "typed words right", [found.accuracy for _, found in scores]),
        ):
            axes.plot(rounds, values, color=colour, linewidth=2, marker="o", label=label)
            _annotate(axes, rounds, values, colour)
        axes.set_ylim(0, 1.08)
        axes.set_xticks(rounds, ["base", *(f"round {number}" for number in rounds[1:])])
        axes.grid(axis="y")
        axes.legend(loc="lower right")
        return png(figure)


def tools_plot(story: Story) -> bytes:
    """Share rated good by target tool: the base model and the champion."""
    tools = sorted(story.base.by_tool)
    arms: list[tuple[str, Score]] = [("base model", story.base)]
    if story.champion_score is not None:
        arms.append(("champion", story.champion_score))
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 4.0, "Rated good by target tool")
        width = 0.8 / len(arms)
        for place, (label, found) in enumerate(arms):
            offset = (place - (len(arms) - 1) / 2) * width
            bars = axes.bar(
                [index + offset for index in range(len(tools))],
                [found.by_tool.get(tool, 0.0) for tool in tools],
                width=width * 0.92,
                color=COLOURS[1 - place],
                label=label,
            )
            axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=9)
        axes.set_xticks(range(len(tools)), tools)
        axes.set_ylim(0, 1.12)
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def trial_plot(turn: Round) -> bytes:
    """The difference between the arms at every look, with bounds that hold at all of them."""
    hours, differences, lowers, uppers = zip(*turn.looks, strict=True)
    with mpl.rc_context(STYLE):
        title = f"Challenger minus champion: {turn.decision.replace('_', ' ')}"
        figure, axes = new_figure(8.0, 3.6, title)
        axes.fill_between(hours, lowers, uppers, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(hours, differences, color=COLOURS[0], linewidth=2, marker="o", markersize=3)
        axes.axhline(0, color=INK, linewidth=1)
        for hour, share in _steps(turn.shares):
            label = f"share {share:.0%}"
            axes.axvline(hour, color=COLOURS[1], linewidth=1, linestyle=":")
            axes.annotate(label, (hour, axes.get_ylim()[1]), fontsize=9, color=COLOURS[1])
        axes.set_xlabel("simulated hours")
        axes.set_ylabel("0.5·quality + 0.3·positive")
        axes.grid(axis="y")
        return png(figure)


def _steps(shares: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The looks at which the share had grown."""
    return [after for before, after in pairwise(shares) if after[1] > before[1]]


def _annotate(axes: Axes, xs: Sequence[float], ys: Sequence[float], colour: str) -> None:
    for x, y in zip(xs, ys, strict=True):
        axes.annotate(
            f"{y:.0%}", (x, y), xytext=(0, 7), textcoords="offset points", ha="center", color=colour
        )


def _cells(found: Score | None) -> tuple[str, str]:
    return ("–", "–") if found is None else (f"{found.rated_good:.0%}", f"{found.accuracy:.0%}")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
