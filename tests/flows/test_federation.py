"""Two installations learn one adapter, each on its own database, on a real Ray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray
from sqlmodel import select
from typer.testing import CliRunner

from flows.cli import app
from flows.context import Context, open_context
from flows.curate import run_curate
from flows.errors import RefusedError
from flows.federation import Site, run_federation, settings_of
from flows.steps import PlainSteps
from registry import audit
from registry.models import UserInteraction
from registry.settings import Settings, load_settings
from tests.flows.conftest import NOW
from tests.flows.test_retrain_on_ray import RECIPE
from tests.support.ray_cluster import RAY_WARNINGS
from tests.support.tiny_model import make_tiny_model
from tests.support.usage import log_liked
from training.base import load_base
from training.encoding import Example
from training.errors import DataError
from training.evaluation.frozen import freeze
from training.federated.averaging import Averaging
from training.federated.rounds import RoundReport
from training.lora import attach_adapter

pytestmark = [pytest.mark.timeout(400), *RAY_WARNINGS]


def _site(settings: Settings, home: Path, number: int, *, start: int) -> Context:
    """An installation with so many liked answers, curated."""
    context = open_context(settings.model_copy(update={"home": home}), clock=lambda: NOW)
    log_liked(context, number, at=NOW, start=start)
    run_curate(context, workload="default", steps=PlainSteps())
    return context


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    recipe = tmp_path / "test.toml"
    recipe.write_text(RECIPE)
    base = make_tiny_model(tmp_path / "base")
    return load_settings(
        {"KALIMTAK_TRAINING__BASE_MODEL": str(base), "KALIMTAK_TRAINING__RECIPE": str(recipe)},
        directory=tmp_path,
    )


@pytest.mark.slow
def test_sites_learn_together_and_only_adapters_and_counts_leave_them(
    settings: Settings, tmp_path: Path
) -> None:
    sites = [
        _site(settings, tmp_path / name, number, start=start)
        for name, number, start in (("one", 60, 0), ("two", 30, 60))
    ]
    told: list[RoundReport] = []
    averaging = Averaging(max_rank=4, clip_norm=1.0, noise_multiplier=1.0)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        open_context(settings.model_copy(update={"home": tmp_path / "new"})).database.close()
        with pytest.raises(RefusedError, match=r"site .*new has 0 samples to train on"):
            _together(settings, [tmp_path / "one", tmp_path / "new"], averaging, told)
        assert not (tmp_path / "out").exists()
        reports = _together(settings, [tmp_path / "one", tmp_path / "two"], averaging, told)
    finally:
        ray.shutdown()
    assert told == reports
    assert len(reports) == 2
    first, second = reports[0].num_samples
    assert first > second > 10
    assert 0 < reports[0].epsilon < reports[1].epsilon
    attach_adapter(
        load_base(settings.training.base_model), tmp_path / "out" / "adapter", trainable=False
    )
    document = json.loads((tmp_path / "out" / "federation.json").read_text())
    assert [turn["rank"] for turn in document["rounds"]] == [4, 4]
    assert {path.name for path in (tmp_path / "out" / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    for site in sites:
        with site.database.read() as session:
            assert audit.entries(session, limit=1)[0].action == "build_dataset"


def test_a_site_learns_nothing_that_is_near_to_a_frozen_suite(
    settings: Settings, tmp_path: Path
) -> None:
    context = _site(settings, tmp_path / "one", 30, start=0)
    with context.database.read() as session:
        asked = session.exec(select(UserInteraction.input_text)).all()
    questions = [
        Example(
            id=text,
            messages=(
                {"role": "user", "content": text},
                {"role": "assistant", "content": "Yes."},
            ),
            target_tool="email",
            language="en",
        )
        for text in asked
    ]
    suite = freeze(questions, name="all", folder=tmp_path)
    training = settings.training.model_copy(update={"suites": (suite,)})
    site = settings.model_copy(update={"home": tmp_path / "one", "training": training})
    with pytest.raises(DataError, match="near to questions of the suites all"):
        Site(site).prepare("default")


def test_what_is_no_installation_or_named_twice_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(RefusedError, match=r"nowhere is no installation"):
        settings_of(tmp_path / "nowhere", settings)
    assert not (tmp_path / "nowhere").exists()

    for homes in ([tmp_path], [tmp_path, tmp_path / "."]):
        with pytest.raises(RefusedError, match="at least two sites, each of them once"):
            _together(settings, homes, Averaging(), [])


def _together(
    settings: Settings, homes: list[Path], averaging: Averaging, told: list[RoundReport]
) -> list[RoundReport]:
    return run_federation(
        settings,
        homes,
        num_rounds=2,
        averaging=averaging,
        out=settings.home.parent / "out",
        workload="default",
        on_round=told.append,
    )


def test_impossible_settings_are_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["federate", "a", "b", "--out", "o", "--noise", "1"])
    assert isinstance(result.exception, RefusedError)
    assert "noise_multiplier needs clip_norm" in str(result.exception)
