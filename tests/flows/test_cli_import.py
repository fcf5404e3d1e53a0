"""`kalimtak import` as a process of its own: what it says and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

from tests.flows.test_cli import kalimtak

GOOD = '{"prompt": "Write an email", "answer": "Role: writer", "feedback_score": 5}\n'


def test_an_import_tells_what_came_of_every_row_and_ends_well(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(GOOD + "{\n" + GOOD)
    first = kalimtak(tmp_path, "import", "log.jsonl")
    assert first.returncode == 0, first.stderr
    lines = [" ".join(line.split()) for line in first.stdout.splitlines()]
    assert "rows read 3 as columns, prompts" in lines
    assert "imported 1 workload default" in lines
    assert "there already 1" in lines
    assert any(line.startswith("refused 1 see") for line in lines)
    (file,) = (tmp_path / "var" / "imports").iterdir()
    assert json.loads(file.read_text())["row"] == 2
    assert file.stat().st_mode & 0o077 == 0
    status = json.loads(kalimtak(tmp_path, "status", "--json").stdout)
    assert status["total_interactions"] == 1


def test_what_cannot_be_imported_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("frage,antwort\na,b\n")
    for arguments, complaint in (
        (["log.csv"], "The file has: frage, antwort."),
        (["nowhere.csv"], "cannot read nowhere.csv: No such file"),
        (["log.csv", "--map", "frage"], "write it as FIELD=COLUMN"),
        (["log.csv", "--workload", "other"], "there is no workload 'other'; there are: default"),
    ):
        result = kalimtak(tmp_path, "import", *arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert complaint in result.stderr
        assert len(result.stderr.splitlines()) == 1
