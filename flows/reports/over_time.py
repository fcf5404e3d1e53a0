"""Quality of versions in the order of their making, beside what needs no training."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from flows.learner import FEW_SHOT, Evaluated
from flows.reports.plots import COLOURS, STYLE, new_figure, png

_DAY_S = 86400.0
"""Matplotlib counts days since 1970."""


def over_time_plot(results: Mapping[str, Evaluated], made: Mapping[str, datetime]) -> bytes:
    """Accuracy with its interval of each version at the time it was made.

    Whoever is in `results` and not in `made` was not trained: the base, and the base with
    examples in its prompt, as lines to stay above.
    """
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 4.4, "Accuracy of versions over time")
        trained = sorted(made, key=lambda version: (made[version], version))
        _versions(axes, trained, results, made)
        for colour, name in zip(COLOURS[1:], [n for n in results if n not in made], strict=False):
            axes.axhline(
                results[name].scores.accuracy,
                color=colour,
                linestyle="--" if name == FEW_SHOT else ":",
                linewidth=2,
                label=name,
            )
        axes.set_ylim(0, 1.05)
        axes.set_ylabel("accuracy, with its 95 % interval")
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def _versions(
    axes: Axes,
    trained: list[str],
    results: Mapping[str, Evaluated],
    made: Mapping[str, datetime],
) -> None:
    if not trained:
        axes.set_xticks([])
        return
    when = [made[version].timestamp() / _DAY_S for version in trained]
    values = [results[version].scores.accuracy for version in trained]
    lows, highs = zip(*(_around(results[version]) for version in trained), strict=True)
    axes.errorbar(
        when, values, yerr=(lows, highs), color=COLOURS[0], marker="o", capsize=4, label="versions"
    )
    axes.xaxis_date()
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    room = max(0.02, 0.08 * (when[-1] - when[0]))
    axes.set_xlim(when[0] - room, when[-1] + room)


def _around(evaluated: Evaluated) -> tuple[float, float]:
    """How far the interval reaches below and above; nothing where there is none."""
    accuracy, metrics = evaluated.scores.accuracy, evaluated.metrics
    low = metrics.get("accuracy from", accuracy)
    high = metrics.get("accuracy to", accuracy)
    return max(0.0, accuracy - low), max(0.0, high - accuracy)
