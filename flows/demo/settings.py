"""The settings of a demo."""

from registry.settings import Settings
from registry.settings_access import AuthSettings, LimitSettings

MIN_SAMPLES = 40
MAX_HOURS = 144.0
SHARES = (0.25, 0.5)
"""Hundreds of requests, not tens of thousands: the trial needs its half of them soon."""
RAMP_MIN_RATED = 15
MAYBE_QUALITY = 0.5
LATENCY_TOLERANCE = 2.0
"""An adapter adds a visible share to the work of so tiny a base model."""


def prepare(settings: Settings) -> Settings:
    """`settings` for a demo: a folder of its own, thresholds for hundreds of requests.

    Its people have no credentials, so it asks for none and is on loopback. Everything else is
    as in production.
    """
    changes: dict[str, object] = {
        "home": settings.home / "demo",
        "database_url": None,
        "artifacts_url": None,
        "serving": settings.serving.model_copy(update={"host": "127.0.0.1"}),
        "auth": AuthSettings(),
        "limits": LimitSettings(),
        # A scorer fitted on some hundred ratings is sure of few answers.
        "curation": settings.curation.model_copy(update={"maybe_min_quality": MAYBE_QUALITY}),
        "training": settings.training.model_copy(update={"min_samples": MIN_SAMPLES}),
        "triggers": settings.triggers.model_copy(update={"min_new_samples": MIN_SAMPLES}),
        "experiment": settings.experiment.model_copy(
            update={
                "max_hours": MAX_HOURS,
                "shares": SHARES,
                "latency_tolerance": LATENCY_TOLERANCE,
                "ramp_min_rated": RAMP_MIN_RATED,
                "settle_hours": 0,
            }
        ),
    }
    return settings.model_copy(update=changes)
