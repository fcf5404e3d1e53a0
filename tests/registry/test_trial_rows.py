"""What was read of an experiment is kept, and what is kept never changes what is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import delete, select

from registry import erasure, experiments, trial_rows
from registry.crypto import Keyring
from registry.db import Database
from registry.models import Experiment, TrialRows, UserInteraction
from registry.versions import Status
from tests.registry.conftest import NOW
from tests.registry.test_experiment_statistics import Acts, log, start

DAYS = 7


def read(database: Database, experiment: Experiment) -> pl.DataFrame:
    with database.read() as session:
        return trial_rows.read(session, experiment, prior_days=DAYS).rows.sort("id")


def from_scratch(database: Database, experiment: Experiment) -> pl.DataFrame:
    with database.write() as session:
        session.exec(delete(TrialRows))
        return trial_rows.read(session, experiment, prior_days=DAYS).rows.sort("id")


def keep(database: Database, experiment: Experiment) -> None:
    trial_rows.keep(database, experiment, prior_days=DAYS)


def num_kept(database: Database) -> int:
    with database.read() as session:
        return len(session.exec(select(TrialRows.experiment_id)).all())


acts = st.one_of(
    st.tuples(st.just("answer"), st.floats(0, 100), st.sampled_from([None, 1, -1, 0])),
    st.tuples(st.just("rate"), st.integers(0, 20), st.sampled_from([1, -1])),
    st.tuples(st.just("lose"), st.integers(0, 20), st.none()),
    st.tuples(st.just("keep"), st.none(), st.none()),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(course=st.lists(acts, max_size=12))
def test_what_is_kept_never_changes_what_is_found(
    database: Database, act: Acts, course: list[tuple[str, float | None, int | None]]
) -> None:
    with database.write() as session:
        session.exec(delete(UserInteraction))
        session.exec(delete(TrialRows))
        running = experiments.running(session, workload="default")
    experiment = running or start(database, act("try"))
    names: list[str] = []
    for kind, where, thumb in course:
        if kind == "answer":
            names.append(f"a{len(names)}")
            log(database, experiment, names[-1], hours=where or 0, user="ann", thumb=thumb)
        elif kind == "keep":
            keep(database, experiment)
        elif names:
            _change(database, names[int(where or 0) % len(names)], thumb)
    keep(database, experiment)
    assert read(database, experiment).equals(from_scratch(database, experiment))


def _change(database: Database, name: str, thumb: int | None) -> None:
    """Rate it a month later, or lose it."""
    with database.write() as session:
        row = session.get(UserInteraction, name)
        if row is not None and thumb is None:
            trial_rows.forget(session, [name])  # as whoever deletes does
            session.delete(row)
        elif row is not None:
            row.user_feedback, row.feedback_at = thumb, NOW + timedelta(days=30)


def test_of_what_is_kept_only_what_is_new_is_read(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    for index in range(30):
        log(database, experiment, f"a{index:02}", hours=index, user="ann", thumb=1)
    keep(database, experiment)
    log(database, experiment, "new", hours=30, user="ben")
    with database.write() as session:
        session.get_one(UserInteraction, "a00").quality_score = 0.9
    found = read(database, experiment)
    assert found.height == 31
    assert found.filter(pl.col("id") == trial_rows.number_of("a00"))["quality"].item() == 0.5


def test_priors_are_kept_as_they_were_when_it_began(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "before", hours=-10, user="ann", thumb=1)
    keep(database, experiment)
    log(database, experiment, "came late", hours=-9, user="ben", thumb=1)
    with database.read() as session:
        kept = trial_rows.read(session, experiment, prior_days=DAYS).priors
        other_days = trial_rows.read(session, experiment, prior_days=DAYS - 1).priors
    assert (kept.height, other_days.height) == (1, 2)


def test_nothing_is_kept_of_an_experiment_that_has_ended(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a", user="ann")
    keep(database, experiment)
    assert num_kept(database) == 1
    with database.write() as session:
        experiments.stop(session, act("enough"), experiment_id=experiment.id, status=Status.RETIRED)
    keep(database, experiment)
    assert num_kept(database) == 0


def test_an_erasure_leaves_nothing_kept_of_the_erased(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a", user="ann")
    log(database, experiment, "b", user="ben")
    keep(database, experiment)
    asked = replace(act("asked"), keyring=Keyring(bytes(32)))
    with database.write() as session:
        begun = erasure.begin(session, asked, "ann", approved_by="dpo", policy="report")
        assert erasure.delete_some(session, begun.id)
    assert num_kept(database) == 0
    keep(database, experiment)  # until the erasure is complete, nothing is
    assert num_kept(database) == 0
    assert read(database, experiment)["id"].to_list() == [trial_rows.number_of("b")]


def test_what_an_earlier_code_kept_in_another_form_is_read_again(
    database: Database, act: Acts
) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a", user="ann")
    keep(database, experiment)
    with database.write() as session:
        row = session.get_one(TrialRows, experiment.id)
        row.answers = trial_rows._encoded(pl.DataFrame({"id": ["x"]}))
    assert read(database, experiment)["id"].to_list() == [trial_rows.number_of("a")]
