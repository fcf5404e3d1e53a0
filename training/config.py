"""Recipes: one complete training run each, read from TOML and checked before anything starts."""

from __future__ import annotations

import hashlib
import math
import tomllib
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError
from training.schedule import LoopSettings, ObjectiveName, ObjectiveSettings

RECIPES = Path(__file__).parent / "recipes"
"""The folder of the recipes that ship with the project."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LoraRecipe(_Section):
    """The adapter. A run that continues a parent's adapter keeps the parent's instead."""

    rank: int = Field(ge=1, le=512)
    """Rank of each update."""
    alpha: float = Field(gt=0)
    """Updates are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs dropped while training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names of the layers that get an update; "all-linear" leaves only the head out."""


class OptimizerRecipe(_Section):
    """AdamW on the adapter's weights."""

    num_steps: int = Field(ge=1)
    """Most optimizer steps of a run, and what it takes where num_epochs is unset."""
    num_epochs: float | None = Field(default=None, gt=0)
    """Passes over the examples, as far as min_steps and num_steps allow."""
    min_steps: int = Field(default=1, ge=1)
    """Least optimizer steps of a run; at most num_steps."""
    learning_rate: float = Field(gt=0, le=1)
    """At its peak, after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly; at most num_steps."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """How the learning rate goes on after the warm-up; linear and cosine end at 0."""
    weight_decay: float = Field(default=0.0, ge=0, lt=1)
    """Per unit of learning rate and step."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """The gradient's norm is clipped to this."""


class ObjectiveRecipe(_Section):
    """What is learned from; `training.objectives` tells which examples each has a use for."""

    name: ObjectiveName = "sft"
    """sft: accepted answers; dpo: corrections over what they correct; kto: thumbs; mixed: sft
    and dpo together."""
    beta: float = Field(default=0.1, gt=0)
    """How closely dpo, kto and mixed stay to the adapter that the run starts from."""
    preference_weight: float = Field(default=1.0, gt=0)
    """Weight of dpo beside sft in mixed."""

    @property
    def reads_rejected(self) -> bool:
        """Whether anything is learned from the answers that people rejected."""
        return self.name != "sft"


class DataRecipe(_Section):
    """How examples become batches."""

    global_batch: int = Field(ge=1)
    """Examples per optimizer step, over all workers."""
    tokens_per_pass: int = Field(ge=8)
    """Tokens, prompts and padding included, per forward pass of one worker; at least max_tokens.
    More fills a device better and takes more memory; without dropout the result is the same."""
    max_tokens: int = Field(ge=8)
    """Longest example; a longer one loses the beginning of its prompt."""
    balance_by_tool: bool = False
    """Draw equally often from every target tool, however many examples each has."""


class WorkersRecipe(_Section):
    """What Ray is asked for."""

    num_workers: int = Field(ge=1)
    """Data-parallel workers."""
    cpus_per_worker: float = Field(gt=0)
    """CPUs reserved in Ray for each."""
    gpus_per_worker: int = Field(default=0, ge=0, le=1)
    """1 trains on CUDA with nccl, 0 on the CPU with gloo."""
    threads: int = Field(ge=1)
    """Torch threads of each worker, set explicitly."""
    precision: Literal["fp32", "bf16", "nf4"] = "fp32"
    """Of the frozen base; the adapter and its optimizer stay in fp32. nf4 is 4 bits (QLoRA),
    on a GPU, by bitsandbytes."""
    recompute: bool = False
    """Compute activations a second time instead of keeping them (gradient checkpointing): about
    a third slower, in a fraction of the memory."""
    shard_base: bool = False
    """Each worker keeps its share of the base's layers (FSDP2); for bases larger than a GPU."""
    min_workers: int | None = Field(default=None, ge=1)
    """Where fewer machines than num_workers want are there, go on with as few as this."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Latest checkpoints kept."""
    max_failures: int = Field(default=1, ge=0)
    """How often lost workers are replaced, resuming from the last checkpoint."""
    checkpoint_every: int = Field(ge=1)
    """Steps between checkpoints."""
    start_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds to wait for Ray to grant what is asked for, each time."""


class EvaluationRecipe(_Section):
    """How versions are evaluated after training, in one Ray task on one worker's resources."""

    batch_size: int = Field(ge=1)
    """Conversations generated at once."""
    max_new_tokens: int = Field(ge=1)
    """Longest answer."""


class SearchRecipe(_Section):
    """What is tried beyond one run; each choice is made by the validation loss."""

    num_seeds: int = Field(default=1, ge=1, le=16)
    """Adapters trained in turn from as many seeds, of which the best is kept."""
    num_trials: int = Field(default=0, ge=0, le=64)
    """Most settings tried before the run, by Ray Tune, besides the recipe's own; 0 tries none."""
    learning_rates: tuple[float, ...] = ()
    """Those that are tried; none given, the recipe's own."""
    ranks: tuple[int, ...] = ()
    """The same, with the scale alpha / rank kept. A run that continues an adapter tries none."""
    epochs: tuple[float, ...] = ()
    """The same, of optimizer.num_epochs, within min_steps and num_steps."""


class Recipe(_Section):
    """One complete run."""

    name: str = Field(min_length=1)
    """The recipe's own name."""
    seed: int = Field(default=0, ge=0)
    """Of the adapter's start, the order of examples and dropout."""
    lora: LoraRecipe
    optimizer: OptimizerRecipe
    objective: ObjectiveRecipe = ObjectiveRecipe()
    data: DataRecipe
    workers: WorkersRecipe
    evaluation: EvaluationRecipe
    search: SearchRecipe = SearchRecipe()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        optimizer, data, workers = self.optimizer, self.data, self.workers
        if optimizer.warmup_steps > optimizer.num_steps:
            raise ValueError(
                f"optimizer.warmup_steps ({optimizer.warmup_steps}) exceeds "
                f"optimizer.num_steps ({optimizer.num_steps})"
            )
        if optimizer.min_steps > optimizer.num_steps:
            raise ValueError(
                f"optimizer.min_steps ({optimizer.min_steps}) exceeds "
                f"optimizer.num_steps ({optimizer.num_steps})"
            )
        if workers.num_workers > data.global_batch:
            raise ValueError(
                f"workers.num_workers ({workers.num_workers}) exceeds data.global_batch "
                f"({data.global_batch}): some workers would have nothing to do"
            )
        if workers.min_workers is not None and workers.min_workers > workers.num_workers:
            raise ValueError(
                f"workers.min_workers ({workers.min_workers}) exceeds workers.num_workers "
                f"({workers.num_workers})"
            )
        if workers.precision == "nf4" and not workers.gpus_per_worker:
            raise ValueError('workers.precision "nf4" needs workers.gpus_per_worker = 1')
        if workers.precision == "nf4" and workers.shard_base:
            raise ValueError('workers.precision "nf4" cannot be sharded (workers.shard_base)')
        if workers.shard_base and self.objective.name == "kto":
            raise ValueError('objective.name "kto" needs workers.shard_base = false')
        search = self.search
        tried = (*search.learning_rates, *search.ranks, *search.epochs)
        if bool(search.num_trials) != bool(tried):
            raise ValueError(
                f"search.num_trials ({search.num_trials}) needs learning_rates, ranks or epochs "
                "to try, and they need num_trials above 0"
            )
        if any(value <= 0 for value in tried):
            raise ValueError(f"search: {min(tried)} cannot be tried; values must be above 0")
        if search.num_trials and workers.shard_base:
            raise ValueError(
                "search.num_trials needs workers.shard_base = false: each trial has one worker"
            )
        if data.max_tokens > data.tokens_per_pass:
            raise ValueError(
                f"data.max_tokens ({data.max_tokens}) exceeds data.tokens_per_pass "
                f"({data.tokens_per_pass})"
            )
        return self

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where workers compute."""
        return "cuda" if self.workers.gpus_per_worker else "cpu"

    def loop_settings(self, num_examples: int) -> LoopSettings:
        """The part that the training loop reads, for a run on `num_examples`."""
        num_steps = self.num_steps(num_examples)
        return LoopSettings(
            num_steps=num_steps,
            global_batch=self.data.global_batch,
            tokens_per_pass=self.data.tokens_per_pass,
            learning_rate=self.optimizer.learning_rate,
            warmup_steps=min(self.optimizer.warmup_steps, num_steps),
            schedule=self.optimizer.schedule,
            weight_decay=self.optimizer.weight_decay,
            max_grad_norm=self.optimizer.max_grad_norm,
            balance_by_tool=self.data.balance_by_tool,
            seed=self.seed,
            equal_passes=self.workers.shard_base,
        )

    def objective_settings(self) -> ObjectiveSettings:
        """The part that the objective reads."""
        return ObjectiveSettings(**self.objective.model_dump())

    def num_steps(self, num_examples: int) -> int:
        """Optimizer steps of a run on `num_examples`."""
        optimizer = self.optimizer
        if optimizer.num_epochs is None:
            return optimizer.num_steps
        wanted = math.ceil(optimizer.num_epochs * num_examples / self.data.global_batch)
        return min(max(wanted, optimizer.min_steps), optimizer.num_steps)

    def digest(self) -> str:
        """`sha256:…` of the recipe's values, whatever the file's layout and comments."""
        return f"sha256:{hashlib.sha256(self.model_dump_json().encode()).hexdigest()}"


def recipe_names() -> list[str]:
    """The names of the recipes that ship with the project, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A shipped recipe by name, or any by path; RecipeError says in one line what is wrong."""
    path = _recipe_path(name_or_path)
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe {path} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"Recipe {path} is not TOML: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"Recipe {path}: {_first_fault(error)}") from error


def _recipe_path(name_or_path: str | Path) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".toml":
        return path
    if str(name_or_path) not in recipe_names():
        raise RecipeError(
            f"There is no recipe {str(name_or_path)!r}; there are {', '.join(recipe_names())}, "
            "or give the path of a .toml file."
        )
    return RECIPES / f"{name_or_path}.toml"


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where}."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message} (got {fault['input']!r})." if where else f"{message}."
