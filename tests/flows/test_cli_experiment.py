"""`kalimtak experiment`: what ran, why it ended, and whether it would end so again."""

from __future__ import annotations

from pathlib import Path

from flows import rollout
from flows.context import open_context
from flows.experiment import look
from registry.settings import load_settings
from tests.flows.test_cli import kalimtak
from tests.support.versions import register_version


def test_an_experiment_is_listed_shown_frozen_and_replayed(tmp_path: Path) -> None:
    context = open_context(load_settings({}, directory=tmp_path))
    register_version(context, "v1")
    with context.database.write() as session:
        rollout.begin(
            session,
            context.act("test", "try it"),
            workload="default",
            version="v1",
            settings=context.settings.experiment,
        )
    look(context, "default")
    context.database.close()
    assert "v1 on trial against the base model" in kalimtak(tmp_path, "experiment", "list").stdout
    shown = kalimtak(tmp_path, "experiment", "show")
    assert "It is too early to tell: 0.0 of 48 h have passed" in " ".join(shown.stdout.split())
    frozen = kalimtak(tmp_path, "experiment", "freeze", "--reason", "a holiday")
    assert frozen.stdout.startswith("freeze: share 10%")
    replayed = kalimtak(tmp_path, "experiment", "replay")
    assert (replayed.returncode, replayed.stdout) == (0, "1 of 1 looks decide the same again\n")


def test_without_an_experiment_there_is_nothing_to_show(tmp_path: Path) -> None:
    shown = kalimtak(tmp_path, "experiment", "show")
    assert (shown.returncode, shown.stderr) == (
        2,
        "kalimtak: workload 'default' had no experiment yet\n",
    )


def test_the_last_checks_of_the_triggers_are_explained(tmp_path: Path) -> None:
    empty = kalimtak(tmp_path, "triggers", "--last", "1")
    assert empty.stdout == "workload 'default' was not checked yet\n"
    kalimtak(tmp_path, "triggers")
    explained = kalimtak(tmp_path, "triggers", "--last", "1")
    assert "0 new quality samples (trigger: 1000; 1000 to go)" in explained.stdout
