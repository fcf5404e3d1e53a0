"""The tables. `user_interactions`, `training_data` and `model_versions` are the core."""

from registry.models.access import ApiKey
from registry.models.columns import DEFAULT_WORKLOAD
from registry.models.curation import CuratedSignature
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
    DeploymentState,
    Experiment,
    ExperimentArm,
    ExperimentDecision,
    ProductionPeriod,
    ReplicaStatus,
)
from registry.models.privacy import Actor, EncryptionKey, Erasure, ErasureEffect, RetainedUsage
from registry.models.review import ReviewItem
from registry.models.scoring import QualityScorer
from registry.models.serving import IdempotencyKey
from registry.models.totals import TrialRows, UsageDay, UsageHour
from registry.models.trail import AuditEntry, AuditHead
from registry.models.usage import (
    ClientMetadata,
    FeedbackEvent,
    User,
    UserInteraction,
    Workload,
)

__all__ = [
    "DEFAULT_WORKLOAD",
    "Actor",
    "ApiKey",
    "AuditEntry",
    "AuditHead",
    "ClientMetadata",
    "CuratedSignature",
    "CurationRun",
    "Dataset",
    "DatasetItem",
    "DeploymentState",
    "EncryptionKey",
    "Erasure",
    "ErasureEffect",
    "Experiment",
    "ExperimentArm",
    "ExperimentDecision",
    "FeedbackEvent",
    "IdempotencyKey",
    "ModelVersion",
    "ProductionPeriod",
    "QualityScorer",
    "ReplicaStatus",
    "RetainedUsage",
    "RetrainRun",
    "ReviewItem",
    "TrainingData",
    "TrialRows",
    "TriggerCheck",
    "UsageDay",
    "UsageHour",
    "User",
    "UserInteraction",
    "Workload",
]
