"""The `config.json` of afs.continuous, translated to this product's settings."""

from typing import Any

from registry.errors import SettingsError

_KEYS: dict[str, tuple[str, str]] = {
    "check_interval_seconds": ("triggers", "check_interval_seconds"),
    "enable_ab_testing": ("experiment", "enabled"),
    "trigger_config.min_new_samples": ("triggers", "min_new_samples"),
    "trigger_config.schedule_interval_hours": ("triggers", "schedule_interval_hours"),
    "trigger_config.cooldown_hours": ("triggers", "cooldown_hours"),
    "trigger_config.quality_drop_threshold": ("triggers", "quality_drop"),
    "trigger_config.error_rate_threshold": ("triggers", "error_rate"),
    "generator_config.min_quality_score": ("curation", "min_quality"),
    "generator_config.min_user_feedback": ("curation", "min_feedback"),
    "generator_config.existing_data_path": ("curation", "rehearsal_file"),
    "ab_test_config.initial_challenger_traffic": ("experiment", "shares"),
    "ab_test_config.promotion_threshold": ("experiment", "min_improvement"),
    "ab_test_config.min_samples": ("experiment", "min_rated"),
    "ab_test_config.min_test_hours": ("experiment", "min_hours"),
}
_INCLUDE_EXISTING = "generator_config.include_existing_data"


def from_config_json(document: Any) -> dict[str, Any]:
    """Settings values for a `config.json` document. Raises `SettingsError` on an unknown key."""
    if not isinstance(document, dict):
        raise SettingsError("config.json must hold an object")
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": inner_value for inner, inner_value in value.items()}
        else:
            flat[key] = value
    include_existing = flat.pop(_INCLUDE_EXISTING, True)
    values: dict[str, Any] = {}
    for key, value in flat.items():
        if key not in _KEYS:
            raise SettingsError(f"config.json: unknown key '{key}'")
        part, name = _KEYS[key]
        if name == "rehearsal_file" and not include_existing:
            continue
        values.setdefault(part, {})[name] = _growing(value) if name == "shares" else value
    return values


def _growing(first_share: Any) -> list[Any]:
    """The default ramp, begun at `first_share`."""
    if not isinstance(first_share, int | float):
        return [first_share]
    return [first_share, *(share for share in (0.25, 0.5) if share > first_share)]
