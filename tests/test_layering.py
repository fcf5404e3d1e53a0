"""The walls of the house: which package may import which, wherever the import stands."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("registry", "training", "serving", "flows")
HEAVY = {"torch", "ray", "prefect", "transformers"}
FORBIDDEN = {
    "registry": {"training", "serving", "flows", *HEAVY, "peft", "datasets"},
    "training": {"serving", "flows", "prefect"},
    "serving": {"training", "flows", "prefect"},
    "flows": set(),
}
HOT_FILES = (
    "registry/control_tokens.py",
    "training/attention.py",
    "training/bare_head.py",
    "training/losses.py",
    "training/lora.py",
    "training/loop.py",
    "training/objectives.py",
    "training/packable.py",
    "training/packing.py",
    "training/thin_lora.py",
    "serving/engine/batching.py",
    "serving/engine/cache.py",
    "serving/engine/cache_budget.py",
    "serving/engine/protocol.py",
    "serving/engine/attention.py",
    "serving/engine/model.py",
    "serving/engine/request.py",
    "serving/engine/text.py",
    "serving/engine/continuous.py",
    "serving/engine/sampling.py",
    "serving/engine/scheduler.py",
    "serving/engine/stacked_lora.py",
)
# transformers renders its chat templates with jinja2.
HOT_IMPORTS = {"numpy", "torch", "transformers", "jinja2", "peft", "safetensors"}
HOT_IMPORTS |= {"training", "serving"}
# What both need; hot code itself.
HOT_SHARED = {"registry.control_tokens"}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, with its line; imports inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.lineno, node.module or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_its_layer_allows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert len(files) > 3, f"{package} has files to check"
    broken = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in files
        for line, module in imported(path)
        if module.split(".")[0] in FORBIDDEN[package]
    ]
    assert broken == []


def test_an_import_inside_a_function_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "sly.py"
    path.write_text("def f():\n    from torch import nn\n    return nn\n")
    assert list(imported(path)) == [(2, "torch")]


@pytest.mark.parametrize("name", HOT_FILES)
def test_hot_code_needs_only_the_numeric_libraries(name: str) -> None:

    allowed = HOT_IMPORTS | set(sys.stdlib_module_names)
    foreign = [
        module
        for _, module in imported(ROOT / name)
        if module.split(".")[0] not in allowed and module not in HOT_SHARED
    ]
    assert foreign == []


def test_the_engine_is_imported_where_only_the_numeric_libraries_are_installed() -> None:
    absent = ("ray", "prefect", "sqlmodel", "sqlalchemy", "pydantic", "fastapi", "rich", "polars")
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import benchmarks.bench_engine, serving.engine.batching, serving.engine.continuous\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
