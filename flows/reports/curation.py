"""The report of a pass of curation: where every row went, as a page with plots."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import matplotlib as mpl

from flows.curation.pipeline import CurationReport
from flows.curation.rows import QUALITY_BINS
from flows.reports.html import environment
from flows.reports.plots import COLOURS, STYLE, data_uri, new_figure, png

MAX_BARS = 12


def waterfall_plot(counts: Mapping[str, int]) -> bytes:
    """Rows left after each step, and beside each bar how many it took."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.0, 1.4 + 0.42 * len(counts), "Rows left after each step")
        names, values = list(counts), list(counts.values())
        lost = [0, *(before - after for before, after in itertools.pairwise(values))]
        axes.barh(names, values, color=COLOURS[0], height=0.66)
        axes.barh(names, lost, left=values, color=COLOURS[1], height=0.66, alpha=0.55)
        top = max(values, default=0) or 1
        for place, (value, gone) in enumerate(zip(values, lost, strict=True)):
            label = f"{value:,}" + (f"  (−{gone:,})" if gone else "")
            axes.annotate(
                label, (value + gone, place), xytext=(6, 0), textcoords="offset points", va="center"
            )
        axes.set_xlim(0, top * 1.25)
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.grid(axis="x")
        return png(figure)


def quality_plot(before: Mapping[int, int], after: Mapping[int, int]) -> bytes:
    """Share of rows by quality score, of what was read and of what was added."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.0, 3.6, "Quality")
        places = [(number + 0.5) / QUALITY_BINS for number in range(QUALITY_BINS)]
        for found, label, colour in ((before, "read", COLOURS[5]), (after, "added", COLOURS[0])):
            total = sum(found.values()) or 1
            shares = [100 * found.get(number, 0) / total for number in range(QUALITY_BINS)]
            axes.bar(places, shares, width=0.9 / QUALITY_BINS, color=colour, alpha=0.6, label=label)
        axes.set_xlabel("quality score")
        axes.set_ylabel("% of rows")
        axes.grid(axis="y")
        axes.legend(loc="upper left")
        return png(figure)


def shares_plot(title: str, before: Mapping[str, int], after: Mapping[str, int]) -> bytes:
    """Shares by name, of what was read and of what was added."""
    totals = sum(before.values()) or 1, sum(after.values()) or 1
    names = sorted({*before, *after}, key=lambda name: (-before.get(name, 0), name))[:MAX_BARS]
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.0, 1.6 + 0.5 * len(names), title)
        for offset, found, total, label, colour in (
            (-0.2, before, totals[0], "read", COLOURS[5]),
            (0.2, after, totals[1], "added", COLOURS[0]),
        ):
            places = [place + offset for place in range(len(names))]
            shares = [100 * found.get(name, 0) / total for name in names]
            bars = axes.barh(places, shares, height=0.38, color=colour, label=label)
            axes.bar_label(bars, fmt="%.1f", padding=4)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlabel("% of rows")
        axes.invert_yaxis()
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def plots(report: CurationReport) -> Sequence[tuple[str, bytes]]:
    """Every plot of the report with its title."""
    before, after = report.before, report.after
    return (
        ("Rows left after each step", waterfall_plot(report.counts)),
        ("Quality before and after", quality_plot(before.quality, after.quality)),
        ("Domains before and after", shares_plot("Domains", before.domains, after.domains)),
        (
            "Languages before and after",
            shares_plot("Languages", before.languages, after.languages),
        ),
    )


def curation_page(report: CurationReport, *, now: datetime) -> str:
    """One self-contained page."""
    return environment.get_template("curation.html").render(
        report=report,
        now=now,
        plots=[(title, data_uri(image)) for title, image in plots(report)],
        examples=report.before.examples,
    )


def write_page(report: CurationReport, folder: Path, *, now: datetime) -> Path:
    """Write the page into `folder`; where it is."""
    page = folder / f"curation-{report.workload}-{now:%Y%m%d-%H%M%S}.html"
    temporary = page.with_suffix(".tmp")
    temporary.write_text(curation_page(report, now=now), encoding="utf-8")
    os.replace(temporary, page)
    return page
