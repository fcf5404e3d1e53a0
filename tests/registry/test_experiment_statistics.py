"""What an experiment's answers come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from registry import experiments, interactions, trial_rows, versions
from registry.crypto import Keyring
from registry.db import Database
from registry.deployment import Act
from registry.experiment_statistics import (
    SharePeriod,
    counted,
    settled,
    share_periods,
    user_sums,
)
from registry.interactions import Feedback, Interaction
from registry.models import Experiment
from tests.registry.conftest import NOW

Acts = Callable[[str], Act]
ONE = [SharePeriod(NOW, None, 0.1)]


def start(database: Database, act: Act) -> Experiment:
    with database.write() as session:
        versions.register(
            session,
            version="v1",
            workload="default",
            base_model="base",
            adapter_digest="d" * 64,
            recipe="r",
            now=NOW,
        )
        return experiments.start(
            session, act, workload="default", challenger="v1", share=0.1, settings={}
        )


def log(
    database: Database,
    experiment: Experiment,
    name: str,
    *,
    hours: float = 1,
    user: str | None = None,
    role: str = "default",
    thumb: int | None = None,
    error: str | None = None,
    rated_after: float = 0,
) -> None:
    at = NOW + timedelta(hours=hours)
    with database.write() as session:
        interactions.log(
            session,
            [
                Interaction(
                    id=name,
                    created_at=at,
                    input_text="a",
                    structured_prompt="b",
                    model_output="b",
                    role=role,
                    experiment_id=experiment.id,
                    external_user_id=user,
                    quality_score=None if error else 0.5,
                    error=error,
                )
            ],
            keyring=Keyring(bytes(32)),
        )
        if thumb is not None:
            interactions.add_feedback(
                session,
                Feedback(interaction_id=name, thumb=thumb),
                now=at + timedelta(hours=rated_after),
                new_id=lambda: f"event-{name}",
            )


def sums(database: Database, experiment: Experiment, **how: object) -> list[tuple[float, ...]]:
    arguments: dict[str, Any] = {
        "stage": "trial",
        "periods": ONE,
        "until": NOW + timedelta(hours=100),
        "max_per_user_day": 5,
        **how,
    }
    with database.read() as session:
        data = trial_rows.read(session, experiment, prior_days=0)
    stage, until = arguments.pop("stage"), arguments["until"]
    since = arguments["periods"][0].since
    version = arguments.pop("version", None)
    found = counted(data.rows, stage=stage, since=since, until=until, version=version)
    columns = ("period", "arm", "scored", "rated", "positive", "negative")
    return sorted(user_sums(found, **arguments).select(columns).rows())


def test_answers_are_added_up_by_user_arm_and_period(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a1", user="a", thumb=1)
    log(database, experiment, "a2", user="a", thumb=-1)
    log(database, experiment, "a3", user="a")
    log(database, experiment, "b1", user="b", role="challenger", thumb=1)
    log(database, experiment, "b2", user="b", role="challenger", error="it broke")
    log(database, experiment, "s", user="b", role="shadow")
    log(database, experiment, "later", user="a", role="challenger", hours=30)
    periods = [SharePeriod(NOW, None, 0.1), SharePeriod(NOW + timedelta(hours=20), None, 0.5)]
    assert sums(database, experiment, periods=periods) == [
        (0, 0, 3, 2, 1, 1),
        (0, 1, 1, 1, 1, 0),
        (1, 1, 1, 0, 0, 0),
    ]


def test_in_the_shadow_copies_are_the_treatment(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a", user="a")
    log(database, experiment, "s", user="a", role="shadow")
    assert sums(database, experiment, stage="shadow") == [(0, 0, 1, 0, 0, 0), (0, 1, 1, 0, 0, 0)]


def test_what_came_after_a_moment_was_not_known_then(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a", user="a", thumb=1, rated_after=10)
    log(database, experiment, "b", user="b", hours=8)
    assert sums(database, experiment, until=NOW + timedelta(hours=5)) == [(0, 0, 1, 0, 0, 0)]


def test_a_user_counts_for_so_much_a_day(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    for index in range(8):
        log(database, experiment, f"a{index}", user="a", thumb=1, hours=1 + index / 10)
    log(database, experiment, "next", user="a", thumb=1, hours=25)
    assert sums(database, experiment, max_per_user_day=3) == [(0, 0, 4, 4, 4, 0)]


def test_unknown_people_are_one_each(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "a")
    log(database, experiment, "b")
    assert len(sums(database, experiment)) == 2


def test_answers_come_in_their_order_with_what_guardrails_need(
    database: Database, act: Acts
) -> None:
    experiment = start(database, act("try"))
    log(database, experiment, "b", hours=2, role="challenger", error="it broke")
    log(database, experiment, "a", hours=1)
    with database.read() as session:
        data = trial_rows.read(session, experiment, prior_days=0)
    found = counted(data.rows, stage="trial", since=NOW, until=NOW + timedelta(hours=3))
    assert found.select("is_treatment", "failed").rows() == [(False, False), (True, True)]


def test_periods_follow_the_share_through_ramps_and_pauses(database: Database, act: Acts) -> None:
    experiment = start(database, act("try"))
    times = {"ramp": 10, "pause": 20, "resume": 25}
    with database.write() as session:
        for name, hours in times.items():
            doing = replace(act(name), now=NOW + timedelta(hours=hours))
            if name == "ramp":
                experiments.ramp(session, doing, experiment_id=experiment.id, share=0.5)
            else:
                getattr(experiments, name)(session, doing, experiment_id=experiment.id)
        found = share_periods(session, experiment, until=NOW + timedelta(hours=30))
    assert [period.share for period in found] == [0.1, 0.5, 0.0, 0.5]
    assert found[0].until == NOW + timedelta(hours=10)
    left = settled(found, NOW + timedelta(hours=12))
    assert [period.share for period in left] == [0.5, 0.0, 0.5]
    assert left[0].since == NOW + timedelta(hours=12)


def test_of_the_time_before_only_what_was_known_when_it_began_counts(
    database: Database, act: Acts
) -> None:
    experiment = start(database, act("try it"))
    log(database, experiment, "liked", hours=-10, user="ann", thumb=1)
    log(database, experiment, "failed", hours=-9, user="ann", error="no")
    log(database, experiment, "rated-late", hours=-8, user="ben", thumb=-1, rated_after=20)
    log(database, experiment, "shadow", hours=-7, user="ben", role="shadow", thumb=1)
    log(database, experiment, "long-ago", hours=-24 * 9, user="cat", thumb=1)
    log(database, experiment, "during", hours=1, user="dan", thumb=1)
    with database.read() as session:
        found = trial_rows.read(session, experiment, prior_days=7).priors
    sums = sorted(found.select("scored", "quality", "rated", "positive").rows())
    assert sums == [(1, 0.5, 0, 0), (1, 0.5, 1, 1)]
