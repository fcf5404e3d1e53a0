import json
from pathlib import Path

import pytest

from registry.artifacts import ArtifactStore
from registry.errors import SettingsError
from registry.settings import load_settings


def test_defaults_are_the_seeds(tmp_path: Path) -> None:
    settings = load_settings({}, directory=tmp_path)
    assert settings.triggers.min_new_samples == 1000
    assert settings.triggers.schedule_interval_hours == 168
    assert settings.triggers.cooldown_hours == 24
    assert settings.experiment.shares[0] == 0.1
    assert settings.curation.min_quality == 0.7
    assert settings.resolved_database_url == f"sqlite:///{tmp_path}/var/kalimtak.db"


def test_environment_wins_over_file(tmp_path: Path) -> None:
    (tmp_path / "kalimtak.toml").write_text("[serving]\nport = 8001\nnum_routers = 3\n")
    settings = load_settings({"KALIMTAK_SERVING__PORT": "8002"}, directory=tmp_path)
    assert (settings.serving.port, settings.serving.num_routers) == (8002, 3)


def test_base_model_and_database_are_chosen_by_environment(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "KALIMTAK_TRAINING__BASE_MODEL": "Qwen/Qwen3-0.6B",
            "KALIMTAK_DATABASE_URL": "postgresql://me@host/db",
            "KALIMTAK_EXPERIMENT__SHARES": "[0.2, 0.4]",
        },
        directory=tmp_path,
    )
    assert settings.training.base_model == "Qwen/Qwen3-0.6B"
    assert settings.resolved_database_url == "postgresql://me@host/db"
    assert settings.experiment.shares == (0.2, 0.4)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[serving]\nprot = 1\n", "serving.prot"),
        ("[triggers]\nerror_rate = 2.0\n", "triggers.error_rate"),
        ("[experiment]\nshares = [0.5, 0.1]\n", "shares"),
        ("[experiment]\nmin_hours = 48\nmax_hours = 10\n", "max_hours"),
        ("nonsense = 1\n", "nonsense"),
        ("[serving\n", "kalimtak.toml"),
    ],
)
def test_a_bad_file_is_refused_naming_the_key(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "kalimtak.toml").write_text(text)
    with pytest.raises(SettingsError, match=named) as error:
        load_settings({}, directory=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KALIMTAK_SERVING__PORT", "abc"),
        ("KALIMTAK_SERVING__PORT", "0"),
        ("KALIMTAK_SERVNG__PORT", "80"),
        ("KALIMTAK_EXPERIMENT__SHARES", "[0.1, "),
        ("KALIMTAK_HOME__PORT", "1"),
        ("KALIMTAK_SERVING", "1"),
    ],
)
def test_a_bad_variable_is_refused(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError):
        load_settings({name: value}, directory=tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KALIMTAK_AUTH__SECRETS__A", "[hunter2"),
        ("KALIMTAK_LIMITS__STORAGE_URL", "redis+sentinel://:hunter2@host"),
        ("KALIMTAK_AUTH__NAME", "[hunter2"),
    ],
)
def test_no_secret_is_told_in_what_is_wrong_with_it(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(SettingsError) as found:
        load_settings({name: value}, directory=tmp_path)
    assert "hunter2" not in str(found.value)


def test_a_secret_may_begin_like_a_list(tmp_path: Path) -> None:
    secret = "[" + "0123456789abcdef" * 4
    settings = load_settings({"KALIMTAK_AUTH__SECRETS__A": secret}, directory=tmp_path)
    assert settings.auth.secrets["a"].get_secret_value() == secret


def test_artifacts_lie_in_the_home_whatever_it_is_called(tmp_path: Path) -> None:
    home = tmp_path / "my höme #1 %20"
    settings = load_settings({"KALIMTAK_HOME": str(home)}, directory=tmp_path)
    (home / "folder").mkdir(parents=True)
    (home / "folder" / "file").write_text("content")
    store = ArtifactStore(settings.resolved_artifacts_url, cache=home / "cache")
    digest = store.publish(home / "folder")
    assert (home / "artifacts" / digest / "file").exists()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]


def test_two_variables_that_contradict_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="KALIMTAK_SERVING__PORT"):
        load_settings({"KALIMTAK_SERVING": "1", "KALIMTAK_SERVING__PORT": "1"}, directory=tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone\.toml"):
        load_settings({"KALIMTAK_CONFIG": "gone.toml"}, directory=tmp_path)


def test_the_seeds_config_json_is_understood(tmp_path: Path) -> None:
    document = {
        "check_interval_seconds": 3600,
        "enable_ab_testing": False,
        "trigger_config": {"min_new_samples": 500, "schedule_interval_hours": 24},
        "generator_config": {"min_quality_score": 0.6, "min_user_feedback": 1},
        "ab_test_config": {"initial_challenger_traffic": 0.2, "promotion_threshold": 0.1},
    }
    (tmp_path / "config.json").write_text(json.dumps(document))
    settings = load_settings({"KALIMTAK_CONFIG": "config.json"}, directory=tmp_path)
    assert settings.triggers.min_new_samples == 500
    assert settings.curation.min_quality == 0.6
    assert settings.experiment.enabled is False
    assert settings.experiment.shares == (0.2, 0.25, 0.5)
    assert settings.experiment.min_improvement == 0.1


def test_an_unknown_key_in_config_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"trigger_config": {"min_samples": 5}}')
    with pytest.raises(SettingsError, match="min_samples"):
        load_settings({"KALIMTAK_CONFIG": "config.json"}, directory=tmp_path)


def test_a_period_can_be_for_ever(tmp_path: Path) -> None:
    variables = {
        "KALIMTAK_RETENTION__INTERACTIONS_DAYS": "none",
        "KALIMTAK_RETENTION__CLIENT_METADATA_DAYS": "7",
    }
    retention = load_settings(variables, directory=tmp_path).retention
    assert (retention.interactions_days, retention.client_metadata_days) == (None, 7)
    with pytest.raises(SettingsError, match="interactions_days"):
        load_settings({"KALIMTAK_RETENTION__INTERACTIONS_DAYS": "0"}, directory=tmp_path)
