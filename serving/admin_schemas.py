"""Bodies of the administrative routes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from serving.schemas import MAX_NAME_CHARS, WHOLE, Body, Storable

MAX_REASON_CHARS = 500
BY_HAND = "by hand, over the API"

Reason = Annotated[Storable, Field(max_length=MAX_REASON_CHARS)]
Workload = Annotated[Storable, Field(max_length=MAX_NAME_CHARS)]


class CurateRequest(Body):
    """What curation is to look at."""

    workload: Workload | None = None
    dry_run: bool = False
    """Only tell what would be added."""
    reason: Reason = BY_HAND


class TrainRequest(Body):
    """What is to be trained."""

    workload: Workload | None = None
    force: bool = False
    """Train again on data that was learned already."""
    dry_run: bool = False
    """Only prepare the data."""
    reason: Reason = BY_HAND


class StartedResponse(BaseModel):
    """A run of a flow that was asked for."""

    status: str
    message: str
    flow_run_id: str
    flow_run_url: str
    """Its page in Prefect's UI."""


class Change(Body):
    """What every change may say."""

    generation: Annotated[int, Field(ge=0), WHOLE] | None = None
    """The one that the caller has seen: where another change came first, this is a 409."""


class ActRequest(Change):
    """Why something is changed, and in which workload; the reason is kept in the audit log."""

    workload: Workload | None = None
    reason: Reason = BY_HAND


class PromoteRequest(Change):
    """Why a version is promoted."""

    reason: Reason = "promoted by hand, over the API"


class ShareRequest(ActRequest):
    """The challenger's share of the traffic."""

    share: Annotated[float, Field(gt=0, le=1)]


class DeploymentResponse(BaseModel):
    """What is to be served from now on; routers and replicas follow within a second."""

    status: str
    message: str
    workload: str
    generation: int
    champion: str | None
    """Null: the base model."""
    challenger: str | None
    share: float
    experiment_id: str | None


class Candidate(BaseModel):
    """An interaction that curation would accept."""

    interaction_id: str
    created_at: datetime
    feedback_at: datetime | None
    input_text: str
    messages: list[dict[str, Any]] | None
    structured_prompt: str
    model_output: str
    corrected_output: str | None
    feedback_score: int | None
    user_feedback: int | None
    feedback_text: str | None
    quality_score: float | None
    target_tool: str | None
    language: str | None
    model_version: str | None
    is_curated: bool
    """Whether it is training data already."""


class CandidatesResponse(BaseModel):
    """A page of candidates, latest feedback first."""

    candidates: Sequence[Candidate]
    next: str | None
    """Cursor of the next page; null on the last one."""


class Version(BaseModel):
    """A model version."""

    version: str
    workload: str
    base_model: str
    parent_version: str | None
    training_dataset_id: str | None
    objective: str
    recipe: str
    adapter_digest: str
    performance_metrics: dict[str, Any]
    evaluation: dict[str, Any]
    deployment_status: str
    status_reason: str | None
    deployed_at: datetime | None
    created_at: datetime


class VersionsResponse(BaseModel):
    """A page of versions, newest first."""

    versions: Sequence[Version]
    next: str | None


class UsageStats(BaseModel):
    """Totals of all time. Rates and means are null where nothing was counted."""

    total: int
    feedback_rate: float | None
    avg_quality_score: float | None
    error_rate: float | None


class LoopStatus(BaseModel):
    """Where the loop stands."""

    champion_model: str
    challenger_model: str | None
    challenger_share: float
    """Of all challengers together."""
    rival_models: list[str]
    """Challengers beside that one, each with an equal part of the share."""
    experiment_id: str | None
    paused: bool
    generation: int
    total_retrains: int
    training_since: datetime | None
    last_training: str | None


class DecisionItem(BaseModel):
    """One look at an experiment."""

    decided_at: datetime
    action: str
    reasons: Sequence[str]


class ReplicaItem(BaseModel):
    """What one router or model replica has made of the desired state."""

    replica_id: str
    kind: str
    generation: int | None
    versions: Sequence[str]
    refused: dict[str, str]
    seen_at: datetime


class StatusResponse(BaseModel):
    """One workload at one moment."""

    workload: str
    usage_stats: UsageStats
    status: LoopStatus
    decisions: Sequence[DecisionItem]
    """The last ones, newest first."""
    replicas: Sequence[ReplicaItem]
