"""The tables. `user_interactions`, `training_data` and `model_versions` are the core."""

from registry.models.access import ApiKey
from registry.models.columns import DEFAULT_WORKLOAD
from registry.models.learning import (
    CurationRun,
    Dataset,
    DatasetItem,
    ModelVersion,
    RetrainRun,
    TrainingData,
    TriggerCheck,
)
from registry.models.operation import (
    AuditEntry,
    DeploymentState,
    Experiment,
    ExperimentDecision,
    ProductionPeriod,
    ReplicaStatus,
)
from registry.models.review import ReviewItem
from registry.models.scoring import QualityScorer
from registry.models.serving import IdempotencyKey
from registry.models.usage import (
    ClientMetadata,
    FeedbackEvent,
    User,
    UserInteraction,
    Workload,
)

__all__ = [
    "DEFAULT_WORKLOAD",
    "ApiKey",
    "AuditEntry",
    "ClientMetadata",
    "CurationRun",
    "Dataset",
    "DatasetItem",
    "DeploymentState",
    "Experiment",
    "ExperimentDecision",
    "FeedbackEvent",
    "IdempotencyKey",
    "ModelVersion",
    "ProductionPeriod",
    "QualityScorer",
    "ReplicaStatus",
    "RetrainRun",
    "ReviewItem",
    "TrainingData",
    "TriggerCheck",
    "User",
    "UserInteraction",
    "Workload",
]
