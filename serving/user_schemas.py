"""Bodies of the routes about people's rights."""

from typing import Any, Literal

from pydantic import BaseModel

from serving.schemas import Body


class ConsentRequest(Body):
    """What a user allows from now on. opt_out: what the settings make of it."""

    consent: Literal["granted", "opt_out", "no_training", "no_content"]


class ConsentResponse(BaseModel):
    """What a user allows. no_training: kept, never learned from; no_content: no text is kept."""

    user_id: str
    consent: Literal["granted", "no_training", "no_content"]


class Touched(BaseModel):
    """A dataset or version that an erasure touched."""

    name: str
    workload: str
    action: str
    """deleted; listed, retired or retrain."""
    done_at: str | None
    status: str | None = None
    """Of a version: where it stands in its lifecycle."""


class ErasureReport(BaseModel):
    """What an erasure did, signed; it holds nothing of what was erased."""

    erasure_id: str
    subject: str
    """A keyed hash, made for this alone."""
    requested_at: str
    completed_at: str | None
    scrubbed_at: str | None
    """When nothing was left in the database's free space either; retention sees to it."""
    requested_by: str
    approved_by: str
    policy: str
    rows: dict[str, int]
    files: dict[str, int]
    datasets: list[Touched]
    versions: list[Touched]
    still_to_come: list[str]
    signature: str


EXPORT_DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Everything that is known of the user.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}
