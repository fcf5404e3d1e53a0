"""The course of an experiment as plots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl

from flows.reports.plots import COLOURS, INK, STYLE, new_figure, png
from registry.models import ExperimentDecision

Looks = Sequence[ExperimentDecision]
NAMES = {
    "error": "errors",
    "latency": "latency",
    "negative_feedback": "negative feedback",
    "split": "split of people",
}
LOWEST = 0.01
"""E-values below this are drawn at it: how little there is to fear does not matter."""


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
        # The first, wide bounds would flatten all that matters.
        reach = 2.5 * max(abs(value) for value in (lower[-1], upper[-1]))
        axes.set_ylim(-reach, reach)
        axes.set_xlabel("hours")
        axes.set_ylabel("0.5·quality + 0.3·positive")
        axes.grid(axis="y")
        return png(figure)


def evidence_plot(looks: Looks) -> bytes:
    """Each guardrail's e-value over the line at which it would act: 1 is the alarm."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 3.8, "Evidence against the challenger (1 = alarm)")
        for colour, (key, name) in zip(COLOURS, NAMES.items(), strict=False):
            found = [
                (look.facts["hours"], look.facts[f"{key}_log_e"] - look.facts[f"{key}_line"])
                for look in looks
                if look.facts.get(f"{key}_log_e") is not None
            ]
            if found:
                hours, logs = zip(*found, strict=True)
                values = [max(LOWEST / 10, math.exp(min(value, 50))) for value in logs]
                axes.plot(hours, values, color=colour, linewidth=2, label=name)
        axes.axhline(1, color=INK, linewidth=1, linestyle="--")
        axes.set_yscale("log")
        axes.set_ylim(LOWEST / 10, max(10.0, axes.get_ylim()[1]))
        axes.set_xlabel("hours")
        axes.grid(axis="y")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def samples_plot(looks: Looks) -> bytes:
    """The challenger's share, and the rated answers of both arms."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 3.8, "Rated answers, and the challenger's share")
        hours = [look.facts["hours"] for look in looks]
        for colour, arm in zip(COLOURS, ("champion", "challenger"), strict=False):
            rated = [look.facts.get(f"{arm}_rated") or 0 for look in looks]
            axes.plot(hours, rated, color=colour, linewidth=2, label=arm)
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
        lines = axes.get_lines() + shares.get_lines()
        axes.legend(
            lines,
            [str(line.get_label()) for line in lines],
            loc="upper left",
            bbox_to_anchor=(1.1, 1.0),
            borderaxespad=0,
        )
        return png(figure)
