"""The flows on a real Prefect server: states, task runs, retries and artifacts."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.runtime import flow_run
from sqlmodel import select

from flows.check_triggers import check, check_triggers
from flows.context import Context
from flows.curate import curate
from flows.errors import RefusedError, SomeFailedError
from flows.experiment import experiment
from flows.prefect_steps import PrefectSteps
from flows.retrain import run_retrain
from registry import deployment, runs
from registry.models import CurationRun, TriggerCheck
from tests.flows.conftest import FakeClock
from tests.support.fake_learner import FakeLearner
from tests.support.usage import log_liked

pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def installation(context: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """The context that a flow opens by itself, too."""
    monkeypatch.setenv("KALIMTAK_HOME", str(context.settings.home))
    monkeypatch.chdir(Path(context.settings.home).parent)
    return context


def artifacts(key: str) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )


def test_a_retraining_leaves_its_reports_and_its_progress(context: Context) -> None:
    log_liked(context, 100, at=context.clock())

    @flow
    def retrain_with_a_fake() -> str:
        result = run_retrain(context, FakeLearner([0.8]), workload="default", steps=PrefectSteps())
        return result.status

    assert retrain_with_a_fake() == "succeeded"
    (progress,) = artifacts("training-progress")
    assert progress.data == 100.0
    (plot,) = artifacts("training-loss")
    assert str(plot.data).startswith("data:image/png;base64,")
    assert "challenger" in str(artifacts("retrain")[0].data)
    assert "| training |" in str(artifacts("dataset")[0].data)


def test_a_step_that_may_be_repeated_is() -> None:
    calls: list[int] = []

    def hiccup() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("connection reset")
        return "done"

    @flow
    def with_retry() -> str:
        return PrefectSteps(retry_delay_s=0).run("hiccup", hiccup, retries=2)

    assert with_retry() == "done"
    assert len(calls) == 2


def test_what_the_product_refuses_is_not_tried_again() -> None:
    calls: list[int] = []

    def refuse() -> None:
        calls.append(1)
        raise RefusedError("too little data")

    @flow
    def with_refusal() -> None:
        PrefectSteps(retry_delay_s=0).run("refuse", refuse, retries=2)

    with pytest.raises(RefusedError):
        with_refusal()
    assert len(calls) == 1


def test_the_curation_flow_curates_what_was_liked(installation: Context) -> None:
    log_liked(installation, 30, at=installation.clock())
    curate()
    with installation.database.read() as session:
        assert len(session.exec(select(CurationRun)).all()) == 1
    assert "30 samples added" in str(artifacts("curation")[0].data)


def test_the_other_scheduled_flows_run_on_an_empty_installation(
    installation: Context, clock: FakeClock
) -> None:
    assert installation.clock is clock
    check_triggers()
    experiment()
    assert "none fired" in str(artifacts("triggers")[0].data)
    assert "no experiment is running" in str(artifacts("experiment")[0].data)


def test_every_workload_has_a_series_of_its_own_for_each_report() -> None:
    names = ("a.b", "a-b", "a_b", "a-d-b", "b")

    @flow
    def report() -> None:
        for name in ("default", *names):
            PrefectSteps(name).table("series", f"of {name}")
            PrefectSteps(name).table("series-b", "another")

    report()
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="series"))
        )
    assert len({artifact.key for artifact in found}) == 12
    assert [artifact.data for artifact in artifacts("series")] == ["of default"]
    assert [artifact.data for artifact in artifacts("series--b")] == ["of b"]


def test_a_flow_that_fails_for_a_workload_tells_so_when_all_have_had_their_turn(
    installation: Context,
) -> None:
    with installation.database.write() as session:
        deployment.add_workload(session, "support", now=installation.clock())
    # Both fire, and there is no deployment to start.
    with pytest.raises(SomeFailedError, match=r"2 of 2 workloads failed; workload 'default': "):
        check_triggers(force=True)
    with installation.database.read() as session:
        kept = session.exec(select(TriggerCheck.workload)).all()
    assert sorted(kept) == ["default", "support"]
    assert "`forced` fired" in str(artifacts("triggers--support")[0].data)


def test_the_flow_run_of_a_dead_training_is_shown_as_crashed(
    context: Context, clock: FakeClock
) -> None:
    @flow
    def killed() -> str:
        return str(flow_run.get_id())

    flow_run_id = killed()
    with context.database.write() as session:
        for name, known in (("mine", flow_run_id), ("foreign", str(uuid4()))):
            deployment.add_workload(session, name, now=clock())
            runs.start(
                session,
                run_id=name,
                workload=name,
                trigger="x",
                now=clock(),
                flow_run_id=known,
            )
    clock.move(minutes=10)

    @flow
    def look() -> None:
        check(context, workload="default", steps=PrefectSteps())

    look()
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id)).state
    assert state is not None
    assert state.is_crashed()
    assert "its process died" in (state.message or "")
