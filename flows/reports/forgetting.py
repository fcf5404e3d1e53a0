"""What versions forgot: of each and every target tool, its accuracy against the best before it."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl

from flows.learner import FEW_SHOT, Evaluated
from flows.reports.plots import STYLE, new_figure, png, shortened

_LARGEST = 0.5
"""Differences from which a cell has its full colour."""


def forgetting(results: Mapping[str, Evaluated]) -> dict[str, dict[str, float]]:
    """By version, oldest first, and tool: accuracy minus the best of any version before it.

    Below 0 something was forgotten. The base with examples in its prompt is no version. The
    first version that knows a tool has no entry for it.
    """
    best: dict[str, float] = {}
    found: dict[str, dict[str, float]] = {}
    for version, result in results.items():
        if version == FEW_SHOT:
            continue
        scores = {tool: score.accuracy for tool, score in result.scores.by_tool.items()}
        found[version] = {
            tool: accuracy - best[tool] for tool, accuracy in scores.items() if tool in best
        }
        for tool, accuracy in scores.items():
            best[tool] = max(accuracy, best.get(tool, accuracy))
    return found


def forgetting_plot(results: Mapping[str, Evaluated]) -> bytes:
    """`forgetting` as a matrix of versions by tools; red was lost, blue was gained."""
    matrix = forgetting(results)
    tools = sorted({tool for row in matrix.values() for tool in row})
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(
            max(8.0, 1.5 * len(tools)), 1.8 + 0.5 * len(matrix), "Accuracy against the best before"
        )
        cells = [[row.get(tool, float("nan")) for tool in tools] for row in matrix.values()]
        if tools:
            axes.imshow(cells, cmap="RdBu", vmin=-_LARGEST, vmax=_LARGEST, aspect="auto")
        axes.set_xticks(range(len(tools)), tools)
        axes.set_yticks(range(len(matrix)), [shortened(version) for version in matrix])
        axes.tick_params(length=0)
        for line, row in enumerate(matrix.values()):
            for column, tool in enumerate(tools):
                if tool in row:
                    axes.text(column, line, f"{row[tool]:+.2f}", ha="center", va="center")
        return png(figure)
