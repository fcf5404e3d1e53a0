"""The README's tree names every module, and nothing that is gone."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = ("registry", "training", "serving", "flows")


def test_the_tree_has_one_line_for_each_module() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.split("## Where to find things")[1].split("```")[1]
    listed = sorted(re.findall(r"^\s*(\w+\.py) ", tree, flags=re.MULTILINE))
    found = sorted(
        path.name
        for top in TOP
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "versions"
    )
    assert len(found) > 80
    assert listed == found
