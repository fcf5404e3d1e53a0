"""What is kept of people, for how long, and what their rights lead to."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from registry.settings_types import Count, Part

Days = Annotated[float, Field(gt=0)]
NEVER = "none"


def _period(value: object) -> object:
    return None if value == NEVER else value


Period = Annotated[Days | None, BeforeValidator(_period)]
"""Days, or `none`: neither the environment nor TOML knows a null."""


class PrivacySettings(Part):
    """What is kept, and how."""

    client_metadata: bool = True
    """Whether address and user agent of requests are kept (encrypted, apart from the content)."""
    encrypt_texts: bool = False
    """Whether texts are encrypted in the database too. `kalimtak keys reseal` encrypts those
    that were there before."""
    opt_out: Literal["no_training", "no_content"] = "no_training"
    """What an opt-out means: kept but never learned from, or not kept at all."""
    erased_versions: Literal["list", "retire", "retrain"] = "list"
    """What becomes of versions that learned from what is erased: named in the report; taken out
    of service; or replaced by a training that starts from what did not learn from it."""


class RetentionSettings(Part):
    """How long things are kept, in days; `none`: for ever."""

    client_metadata_days: Period = 30
    interactions_days: Period = 365
    """Interactions with their feedback and samples, and the files of datasets."""
    users_days: Period = 365
    """Users of whom nothing else is left. Whoever opted out stays known as such."""
    operations_days: Period = 365
    """Records of curation, looks at triggers, ended training runs' leftovers."""
    quarantine_days: Period = 30
    """Lines of the spool that the database will never take."""
    artifact_grace_days: Days = 7
    """Artifacts that nothing needs are deleted when they are this old."""
    keep_versions: Count = 5
    """Versions per workload that met people and keep their adapter, beside those in service."""
    batch_rows: Count = 500
    """Rows deleted in one transaction, so that nobody waits long for a lock."""
