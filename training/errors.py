"""The training package's exceptions.

KalimtakError
└── TrainingError
    ├── RecipeError         a recipe is missing, has an unknown key or an impossible value
    ├── DataError           a training file cannot be read, or nothing in it can be learned
    ├── BaseModelError      the base model cannot be loaded, or does not fit the task
    ├── AdapterError        an adapter cannot be read or put there, or is of another base
    ├── CheckpointError     a checkpoint is damaged, or belongs to another run
    ├── DivergedError       the loss stopped being a number, or kept growing
    └── RunFailedError      the workers failed more often than the recipe allows
"""

from registry.errors import KalimtakError


class TrainingError(KalimtakError):
    """Base of every error that training raises on purpose."""


class RecipeError(TrainingError):
    """A recipe is missing, has an unknown key or an impossible value."""


class DataError(TrainingError):
    """A training file cannot be read, or nothing in it can be learned."""


class BaseModelError(TrainingError):
    """The base model cannot be loaded, or does not fit the task."""


class AdapterError(TrainingError):
    """An adapter cannot be read or put where it is wanted, or is of another base."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, or belongs to another run."""


class DivergedError(TrainingError):
    """The loss stopped being a number, or kept growing."""


class RunFailedError(TrainingError):
    """The workers failed more often than the recipe allows."""
