"""Settings: one frozen class per part, from the environment, `kalimtak.toml` or `config.json`.

Order of precedence: environment (`KALIMTAK_SERVING__PORT=8001`), then the settings
file (`KALIMTAK_CONFIG`, else `kalimtak.toml` in the working directory), then defaults.
Where `KALIMTAK_DIRECTORY` is set, that stands for the working directory, for relative paths too.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from registry.errors import SettingsError
from registry.settings_access import AuthSettings, LimitSettings
from registry.settings_curation import CurationSettings
from registry.settings_decisions import ExperimentSettings, TriggerSettings
from registry.settings_legacy import from_config_json
from registry.settings_paths import expand, make_absolute
from registry.settings_privacy import PrivacySettings, RetentionSettings
from registry.settings_signals import SignalSettings
from registry.settings_trail import AuditSettings
from registry.settings_training import TrainingSettings
from registry.settings_types import Count, Part, Port, Positive, Share

PREFIX = "KALIMTAK_"
CONFIG_VARIABLE = "KALIMTAK_CONFIG"
DIRECTORY_VARIABLE = "KALIMTAK_DIRECTORY"
DEFAULT_FILE = "kalimtak.toml"


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class ServingSettings(Part):
    """The HTTP endpoint and the replicas behind it."""

    host: str = "127.0.0.1"
    """Address that the endpoint binds to."""
    port: Port = 8000
    """Port of the endpoint."""
    num_routers: Count = 2
    num_champion_replicas: Count = 1
    num_challenger_replicas: Count = 1
    replica_num_cpus: Annotated[float, Field(ge=0)] = 0.1
    """CPUs that each replica reserves with Ray; not a limit on what it uses."""
    replica_num_gpus: Annotated[float, Field(ge=0)] = 0
    torch_threads: Count = 1
    """Threads of each model replica."""
    max_batch_size: Count = 32
    """Requests generated together."""
    engine: Literal["torch", "vllm"] = "torch"
    """What generates: the built-in engine, or a vLLM server at `vllm_url` (docs/engine.md)."""
    vllm_url: str | None = None
    """Address of the vLLM server, without /v1. It serves `training.base_model` by that name."""
    kv_cache_tokens: Count | None = None
    """Tokens, prompts and answers together, that a replica holds at a time; unset, what a
    quarter of the free memory has room for, or four fifths of the replica's part of the GPU."""
    max_new_tokens: Count = 256
    """Longest answer, in tokens."""
    max_text_chars: Count = 8_000
    """Longest `text` that /api/generate takes."""
    max_chat_chars: Count = 32_000
    """Longest conversation that /v1/chat/completions takes, all messages together."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Sampling temperature; 0 is greedy."""
    request_timeout_s: Positive = 60
    """A request that takes longer is answered with 504."""
    poll_interval_s: Annotated[float, Field(gt=0, le=1)] = 0.25
    """How often routers and replicas look at the desired state."""
    shadow_share: Share = 0
    """Share of the champion's traffic of which the challenger answers a copy, unseen."""
    spool_max_bytes: Count = 256 * 2**20
    """What one router keeps on its disk while the database is away; beyond it, 503."""

    @property
    def url(self) -> str:
        """Address of the endpoint."""
        return _url(self.host, self.port)

    @model_validator(mode="after")
    def _vllm_has_an_address(self) -> "ServingSettings":
        if self.engine == "vllm" and self.vllm_url is None:
            raise ValueError("engine 'vllm' needs vllm_url, the address of a vLLM server")
        return self


class GateSettings(Part):
    """What a trained version must show on held-out data before people see it."""

    max_accuracy_loss: Share = 0.05
    """Accuracy it may lose against the champion, overall and on any target tool, beyond one
    standard error of the comparison."""
    min_samples_per_tool: Count = 10
    """Tools with fewer held-out samples are reported, not judged."""


class RaySettings(Part):
    """The Ray cluster. Ports are the product's own, so that another Ray may run beside it."""

    address: str | None = None
    """`RAY_ADDRESS` of a running cluster; unset, a local one is started."""
    port: Port = 26379
    dashboard_port: Port = 28265
    client_port: Port = 20001
    num_cpus: Count | None = None
    """CPUs of the local cluster; unset, as many as the machine has, and at least 4."""
    haproxy_metrics_port: Port = 29101
    haproxy_stats_port: Annotated[int, Field(ge=1, le=60_535)] = 28404
    """The routers' own ports lie up to 5,000 above it."""


class LogSettings(Part):
    """What the serving side writes to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["json", "text"] = "json"
    """"json": one object a line; "text": for people."""


class PrefectSettings(Part):
    """The Prefect server that `kalimtak up` starts."""

    host: str = "127.0.0.1"
    port: Port = 4200

    @property
    def url(self) -> str:
        """Its API, where `PREFECT_API_URL` names no other server."""
        return f"{_url(self.host, self.port)}/api"


class Settings(Part):
    """All settings of one installation."""

    home: Path = Path("var")
    """Folder of everything that is kept: database, artifacts, keys, logs."""
    database_url: str | None = None
    """sqlite:///… or postgresql://…; unset, an SQLite file in `home`."""
    artifacts_url: str | None = None
    """Where adapters and datasets are kept, as an fsspec URL; unset, a folder in `home`."""
    serving: ServingSettings = ServingSettings()
    auth: AuthSettings = AuthSettings()
    training: TrainingSettings = TrainingSettings()
    curation: CurationSettings = CurationSettings()
    signals: SignalSettings = SignalSettings()
    triggers: TriggerSettings = TriggerSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    gate: GateSettings = GateSettings()
    ray: RaySettings = RaySettings()
    prefect: PrefectSettings = PrefectSettings()
    limits: LimitSettings = LimitSettings()
    log: LogSettings = LogSettings()
    privacy: PrivacySettings = PrivacySettings()
    retention: RetentionSettings = RetentionSettings()
    audit: AuditSettings = AuditSettings()

    @property
    def resolved_database_url(self) -> str:
        """The database to use."""
        return self.database_url or f"sqlite:///{self.home.absolute() / 'kalimtak.db'}"

    @property
    def resolved_artifacts_url(self) -> str:
        """The artifact store to use."""
        # Not `as_uri`, which writes spaces and accents in a way that fsspec takes literally.
        return self.artifacts_url or f"file://{self.home.absolute() / 'artifacts'}"


def load_settings(
    environment: Mapping[str, str] | None = None, *, directory: Path | None = None
) -> Settings:
    """Settings from `environment` (default: the process's) and the settings file.

    Relative paths are taken from `directory` (default: `KALIMTAK_DIRECTORY`, else the working
    directory). Raises `SettingsError` naming the first key that is unknown or impossible.
    """
    environment = os.environ if environment is None else environment
    if directory is None:
        directory = Path.cwd() / environment.get(DIRECTORY_VARIABLE, "")
    values, source = _read_file(environment.get(CONFIG_VARIABLE), directory)
    for path, value in _from_environment(environment):
        _put(values, path, value)
    make_absolute(values, directory)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_first_fault(error, source)) from error
    home = expand(str(settings.home), directory)
    if "?" in home:
        raise SettingsError(
            f"home = '{home}': no database URL can name a path with a '?': choose another folder"
        )
    return settings.model_copy(update={"home": Path(home)})


def _read_file(name: str | None, directory: Path) -> tuple[dict[str, Any], str]:
    path = directory / (name or DEFAULT_FILE)
    if name is None and not path.exists():
        return {}, "settings"
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return from_config_json(json.loads(text)), str(path)
        return tomllib.loads(text), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read settings file {path}: {error}") from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise SettingsError(f"settings file {path} is not valid: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> list[tuple[list[str], Any]]:
    found = []
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in (CONFIG_VARIABLE, DIRECTORY_VARIABLE):
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        is_list = value.startswith("[") and not _is_secret(path)
        found.append((path, _list(name, value) if is_list else value))
    return found


def _is_secret(path: list[str]) -> bool:
    return path[:2] == ["auth", "secrets"] or path[-1] == "api_key"


def _list(name: str, value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        # What was given may be a secret.
        raise SettingsError(f"{name} begins with '[', and is no valid list: {error}") from error


def _put(values: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            name = PREFIX + "__".join(path).upper()
            raise SettingsError(f"{name}: '{key}' is set to a value, so nothing can be set in it")
    values[path[-1]] = value


_SECRET = ("auth", "training.judge.api_key")


def _first_fault(error: ValidationError, source: str) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{source}: unknown key '{key}'"
    message = fault["msg"].removeprefix("Value error, ")
    if not key or key.startswith(_SECRET) or key.endswith("_url"):
        # What was given may be a secret.
        return f"{source}: {key}: {message}" if key else f"{source}: {message}"
    return f"{source}: {key} = {fault['input']!r}: {message}"
