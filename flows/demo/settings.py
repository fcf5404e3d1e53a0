"""The settings of a demo."""

import shutil

from registry.settings import Settings

MIN_SAMPLES = 40
MAX_HOURS = 144.0
SHARES = (0.25, 0.5)
"""Hundreds of requests, not tens of thousands: the trial needs its half of them soon."""
RAMP_MIN_RATED = 15
LATENCY_TOLERANCE = 2.0
"""An adapter adds a visible share to the work of so tiny a base model."""


def prepare(settings: Settings) -> Settings:
    """`settings` for a demo: an empty folder of its own, thresholds for hundreds of requests.

    Everything else is as in production. What an earlier demo left is removed.
    """
    changes: dict[str, object] = {
        "home": settings.home / "demo",
        "database_url": None,
        "artifacts_url": None,
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
    prepared = settings.model_copy(update=changes)
    shutil.rmtree(prepared.home, ignore_errors=True)
    prepared.home.mkdir(parents=True)
    return prepared
