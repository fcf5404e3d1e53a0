"""What an installation contains, and that it imports from anywhere."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
TOP = ("registry", "training", "serving", "flows")


def test_every_package_of_the_tree_is_listed() -> None:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in TOP
        for path in (ROOT / top).rglob("*.py")
    }
    assert found == set(SETUPTOOLS["packages"])
    assert set(TOP) <= found


def test_every_file_that_is_no_code_is_listed() -> None:
    listed = {
        path
        for top, patterns in SETUPTOOLS["package-data"].items()
        for pattern in patterns
        for path in (ROOT / top).glob(pattern)
    }
    found = {
        path
        for top in TOP
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts
    }
    assert found - listed == set()
    assert any(path.suffix == ".safetensors" for path in found)


def test_the_packages_import_from_another_folder(tmp_path: Path) -> None:
    """As Ray's and Prefect's workers do."""
    code = "import registry.db, training.config, serving.routing, flows.curation.steps"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize(("given", "used"), [({}, "1"), ({"HF_HUB_OFFLINE": "0"}, "0")])
def test_whoever_calls_make_may_let_hugging_face_download(given: dict[str, str], used: str) -> None:
    told = subprocess.run(
        ["make", "--eval=told: ; @echo $(HF_HUB_OFFLINE)", "told"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == f"{used}\n"
