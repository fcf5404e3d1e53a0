"""Settings of training and evaluation."""

from pathlib import Path

from pydantic import SecretStr

from registry.settings_types import Count, Part, Positive


class JudgeSettings(Part):
    """A language model that reads answers and gives marks, beside the metrics; off by default.

    What people asked and what versions answered is sent to it.
    """

    url: str | None = None
    """Where an OpenAI-compatible server is, such as http://127.0.0.1:8001/v1; unset: no judge."""
    model: str = "default"
    """The model that it is asked for."""
    api_key: SecretStr | None = None
    """Sent as a bearer token."""
    timeout_s: Positive = 60
    """For one answer. One that is not judged in time is counted, and left out."""
    concurrency: Count = 4
    """Answers judged at once."""
    max_answers: Count = 200
    """Most answers of one version that are judged, evenly spread over the questions."""


class TrainingSettings(Part):
    """The base model and how it is fine-tuned."""

    base_model: str = "embedded"
    """`embedded`, or any Hugging Face causal LM by id or path."""
    recipe: str = "tiny_cpu"
    """Name of a recipe in training/recipes, or a path to one."""
    suites: tuple[Path, ...] = ()
    """Frozen evaluation suites, which the monthly evaluation asks: what is near to one of their
    questions is never trained on."""
    judge: JudgeSettings = JudgeSettings()
    min_samples: Count = 100
    """A dataset smaller than this is refused."""
    stale_after_s: Positive = 180
    """A training run whose heartbeat is older than this is taken for dead."""
