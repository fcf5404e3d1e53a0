"""Every test that docs/privacy.md names as evidence is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_evidence_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(named) > 20
    for file, name in named:
        content = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", content, flags=re.MULTILINE), f"{file}::{name}"
