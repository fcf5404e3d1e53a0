"""Renders docs/benchmarks.md from the result files: python -m benchmarks.render"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
NAME = re.compile(r"(?P<theme>\w+?)_(?P<hardware>[^_]+)_(?P<date>\d{4}-\d\d-\d\d)\.json")
HEAD = """\
# What was measured

Rendered from `benchmarks/results/` by `python -m benchmarks.render`; nothing here is typed by hand.
Each section names its command. What is compared was measured in the same run, in turns; on a
machine that other work shared, the ratios say more than the speeds.
"""


def latest(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The newest result of each theme and hardware, by name. Raises `ValueError` on a bad name."""
    newest: dict[tuple[str, str], Path] = {}
    for path in sorted(folder.glob("*.json")):
        found = NAME.fullmatch(path.name)
        if found is None:
            raise ValueError(f"{path.name}: results are named <theme>_<hardware>_<date>.json")
        newest[found["theme"], found["hardware"]] = path
    return [(path, json.loads(path.read_text("utf-8"))) for _, path in sorted(newest.items())]


def render(results: Iterable[tuple[Path, dict[str, Any]]]) -> str:
    """The page: what is behind its goal first, then every figure."""
    found = list(results)
    behind = [
        f"- {figure['name']}: {_value(figure)}, goal {figure['goal']} "
        f"([{_title(path)}](#{_title(path)}))"
        for path, result in found
        for figure in result["figures"]
        if figure["holds"] is False
    ]
    goals = [figure for _, result in found for figure in result["figures"] if figure["goal"]]
    parts = [
        HEAD,
        f"## Behind its goal\n\n{len(goals)} figures have a goal, {len(behind)} miss it"
        + (":\n\n" + "\n".join(behind) if behind else ".")
        + "\n",
        *(_section(path, result) for path, result in found),
    ]
    return "\n".join(parts)


def _title(path: Path) -> str:
    return path.stem.rpartition("_")[0]


def _section(path: Path, result: dict[str, Any]) -> str:
    machine, sizes = result["machine"], result["sizes"]
    lines = [
        f"## {_title(path)}\n",
        f"`{_command(result['command'])}`, {result['date'][:10]}, {machine['cpus']} cores "
        f"({machine['processor']}).",
        ", ".join(f"{name} {_plain(value)}" for name, value in sizes.items() if _is_plain(value))
        + ".\n",
        "| measured | value | beside | its | ratio | goal |",
        "|---|---|---|---|---|---|",
    ]
    for figure in result["figures"]:
        peer = figure["peer"] or ""
        beside = "" if figure["peer_value"] is None else _number(figure["peer_value"])
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}"
        goal = figure["goal"] or ""
        if goal:
            goal += " holds" if figure["holds"] else " **missed**"
        lines.append(
            f"| {figure['name']} | {_value(figure)} | {peer} | {beside} | {ratio} | {goal} |"
        )
    return "\n".join(lines) + "\n"


def _command(text: str) -> str:
    """Without where the file went."""
    return re.sub(r" --out \S+", "", text)


def _value(figure: dict[str, Any]) -> str:
    return f"{_number(figure['value'])} {figure['unit']}".rstrip()


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _is_plain(value: Any) -> bool:
    """Whether it is a number or a few, and not a description that the file alone has room for."""
    values = value if isinstance(value, list) else [value]
    return not any(isinstance(each, dict | list) for each in values)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(str, value))
    return str(value)


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(latest(RESULTS)), "utf-8")


if __name__ == "__main__":
    main()
