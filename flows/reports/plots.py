"""Plots as PNG, drawn without a display and without global state."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flows.learner import Evaluated

COLOURS = ("#2f6fb0", "#e07b39", "#4c9f70", "#8b6bb1", "#c2495b", "#6b7280")
INK, FAINT = "#1f2933", "#d7dce2"
STYLE: Any = {
    "font.size": 11.0,
    # Names are people's: a dollar sign in one is no formula.
    "text.parse_math": False,
    "axes.titlesize": 13.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.12,
}
DPI = 110
LABEL_CHARS = 22


def data_uri(png: bytes) -> str:
    """`png` as a data: URI, which Prefect and browsers show without a file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def loss_plot(losses: Sequence[tuple[int, float]]) -> bytes:
    """Training loss by step."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 4.0, "Training loss")
        steps, values = zip(*losses, strict=True)
        axes.plot(steps, values, color=COLOURS[0], linewidth=2)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel("nats per token")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.annotate(
            f"{values[-1]:.3f}",
            (steps[-1], values[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=COLOURS[0],
        )
        return png(figure)


def versions_plot(results: Mapping[str, Evaluated]) -> bytes:
    """Accuracy of each version in the order given (oldest first)."""
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(8.0, 1.2 + 0.55 * len(results), "Accuracy on held-out samples")
        names = [shortened(name) for name in results]
        values = [result.scores.accuracy for result in results.values()]
        bars = axes.barh(names, values, color=COLOURS[0], height=0.6)
        axes.bar_label(bars, fmt="%.3f", padding=5)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="x")
        axes.tick_params(length=0)
        return png(figure)


def tools_plot(results: Mapping[str, Evaluated]) -> bytes:
    """Accuracy by target tool, the versions side by side."""
    tools = sorted({tool for result in results.values() for tool in result.scores.by_tool})
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(max(8.0, 1.5 * len(tools)), 4.4, "Accuracy by target tool")
        width = 0.8 / max(1, len(results))
        for number, (version, result) in enumerate(results.items()):
            offset = (number - (len(results) - 1) / 2) * width
            found = [
                (index + offset, result.scores.by_tool[tool].accuracy)
                for index, tool in enumerate(tools)
                if tool in result.scores.by_tool
            ]
            axes.bar(
                [place for place, _ in found],
                [accuracy for _, accuracy in found],
                width=width * 0.92,
                color=COLOURS[number % len(COLOURS)],
                label=shortened(version),
            )
        axes.set_xticks(range(len(tools)), tools)
        axes.set_ylim(0, 1)
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
        return png(figure)


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """An empty figure of `width` by `height` inches with a title."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    return figure, axes


def png(figure: Figure) -> bytes:
    """`figure` drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def shortened(name: str) -> str:
    """The end of a long name, where versions differ."""
    return name if len(name) <= LABEL_CHARS else f"…{name[-LABEL_CHARS:]}"
