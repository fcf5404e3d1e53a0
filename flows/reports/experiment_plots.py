"""The course of an experiment as plots."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import matplotlib as mpl
from matplotlib.axes import Axes

from flows.reports.plots import COLOURS, INK, STYLE, new_figure, png
from registry.models import ExperimentDecision

Looks = Sequence[ExperimentDecision]
NAMES = {
    "error": "errors",
    "latency": "latency",
    "negative_feedback": "negative feedback",
    "split": "split of people",
}
LINES = ("-", "--", "-.", ":")
"""Told apart where they lie on each other, as they do while all is well."""
MOST = 1.5
"""Evidence beyond this many times the alarm's is drawn at it."""


def interval_plot(looks: Looks) -> bytes:
    """The difference between the arms over time, with its always-valid bounds."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 3.8, "Challenger minus champion")
        hours = [look.facts["hours"] for look in looks]
        lower, upper = ([look.facts[key] for look in looks] for key in ("lower", "upper"))
        estimates = [look.facts["difference"] for look in looks]
        axes.fill_between(hours, lower, upper, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(hours, estimates, color=COLOURS[0], linewidth=2)
        axes.axhline(0, color=INK, linewidth=1)
        _mark_fresh_start(axes, looks)
        for height, side in ((0.95, "challenger better"), (0.05, "champion better")):
            axes.text(
                0.99,
                height,
                side,
                transform=axes.transAxes,
                ha="right",
                va="center",
                color=INK,
                fontsize=9,
            )
        # The first, wide bounds would flatten all that matters.
        reach = 2.5 * max(abs(value) for value in (lower[-1], upper[-1]))
        axes.set_ylim(-reach, reach)
        axes.set_xlabel("hours")
        axes.set_ylabel("0.5·quality + 0.3·positive")
        axes.set_title("the true difference is surely in the band", fontsize=9, loc="right")
        axes.grid(axis="y")
        return png(figure)


def evidence_plot(looks: Looks) -> bytes:
    """How far each guardrail's evidence, ln of its e-value, is on its way to the alarm."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 3.8, "How close each guardrail is to an alarm")
        for colour, line, (key, name) in zip(COLOURS, LINES, NAMES.items(), strict=False):
            found = [
                (look.facts["hours"], look.facts[f"{key}_log_e"] / look.facts[f"{key}_line"])
                for look in looks
                if look.facts.get(f"{key}_log_e") is not None
            ]
            if found:
                hours, ways = zip(*found, strict=True)
                values = [100 * min(max(way, 0), MOST) for way in ways]
                axes.plot(hours, values, color=colour, linewidth=2, linestyle=line, label=name)
        axes.axhline(100, color=INK, linewidth=1)
        axes.text(0.01, 101, "alarm", color=INK, fontsize=9, transform=axes.get_yaxis_transform())
        axes.set_ylim(-3, max(115.0, axes.get_ylim()[1]))
        axes.set_xlabel("hours")
        axes.set_ylabel("% of what an alarm takes")
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def _mark_fresh_start(axes: Axes, looks: Looks) -> None:
    """A line where the first hours, in which what is new pleases or puzzles, cease to count."""
    for before, after in pairwise(looks):
        if (after.facts.get("champion_rated") or 0) < (before.facts.get("champion_rated") or 0):
            hours = (before.facts["hours"] + after.facts["hours"]) / 2
            axes.axvline(hours, color=INK, linewidth=1, linestyle=":")
            axes.text(
                hours,
                0.98,
                " from here on, only what comes counts",
                transform=axes.get_xaxis_transform(),
                va="top",
                color=INK,
                fontsize=9,
            )
            return


def samples_plot(looks: Looks) -> bytes:
    """The challenger's share, and the rated answers of both arms."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 3.8, "Rated answers, and the challenger's share")
        hours = [look.facts["hours"] for look in looks]
        for colour, arm in zip(COLOURS, ("champion", "challenger"), strict=False):
            rated = [look.facts.get(f"{arm}_rated") or 0 for look in looks]
            axes.plot(hours, rated, color=colour, linewidth=2, label=arm)
        _mark_fresh_start(axes, looks)
        axes.set_xlabel("hours")
        axes.set_ylabel("rated answers that count")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        shares = axes.twinx()
        shares.step(
            hours,
            [100 * look.facts["share"] for look in looks],
            where="post",
            color=INK,
            linestyle=":",
            label="share",
        )
        shares.set_ylabel("share in %")
        shares.set_ylim(0, 100)
        drawn = axes.get_lines() + shares.get_lines()
        lines = [line for line in drawn if not str(line.get_label()).startswith("_")]
        axes.legend(
            lines,
            [str(line.get_label()) for line in lines],
            loc="upper left",
            bbox_to_anchor=(1.1, 1.0),
            borderaxespad=0,
        )
        return png(figure)
