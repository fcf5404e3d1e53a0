"""Several installations learn one adapter together; none shows its database to another.

Each site is an actor on Ray that opens its own installation. Into it goes an adapter, and out
of it come an adapter, counts and a loss: `training.federated.rounds` has all that is sent.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray

from flows.context import Context, open_context
from flows.curation.dataset import BuiltDataset, build_dataset
from flows.errors import RefusedError
from flows.runtime import ray_session
from registry.errors import KalimtakError
from registry.folders import refuse_content
from registry.settings import Settings
from training.config import Recipe, load_recipe
from training.encoding import Example, read_examples
from training.evaluation.frozen import without_suites
from training.federated.averaging import Averaging
from training.federated.rounds import Judged, Returned, RoundReport, federate
from training.transport import ADAPTER_NAME, Packed, pack, place, unpack

REPORT_NAME = "federation.json"


class Site:
    """One installation, as the coordinator reaches it. Runs as a Ray actor."""

    def __init__(self, settings: Settings) -> None:
        """`settings` are the installation's."""
        self._settings = settings
        self._recipe = load_recipe(settings.training.recipe)
        self._train: list[Example] = []
        self._held_out: list[Example] = []

    def prepare(self, workload: str) -> None:
        """Build the site's own dataset; `RefusedError` where it has none to learn from.

        What is near to a question of the frozen suites is not learned.
        """
        with tempfile.TemporaryDirectory(prefix="kalimtak-site-") as folder:
            context = open_context(self._settings, workload=workload)
            dataset = _dataset(context, Path(folder), workload)
            if not dataset.num_train or not dataset.num_validation:
                raise RefusedError(
                    f"site {self._settings.home} has {dataset.num_train} samples to train on and "
                    f"{dataset.num_validation} to validate with: both are needed (kalimtak curate)"
                )
            self._train, _ = without_suites(
                read_examples(dataset.train_file), self._settings.training.suites
            )
            self._held_out = read_examples(dataset.validation_file)

    def learn(self, turn: int, start: Packed | None) -> Returned:
        """The adapter that the site makes of `start`."""
        from training.alone import learn
        from training.lora import write_adapter

        recipe = self._recipe.model_copy(update={"seed": self._recipe.seed + turn})
        with tempfile.TemporaryDirectory() as folder:
            parent = None if start is None else unpack(start, Path(folder) / "start")
            base = self._settings.training.base_model
            learned = learn(recipe, base, self._train, parent=parent)
            write_adapter(learned.model, Path(folder) / ADAPTER_NAME, base_id=base)
            return Returned(
                adapter=pack(Path(folder) / ADAPTER_NAME), num_samples=learned.num_examples
            )

    def judge(self, adapter: Packed) -> Judged:
        """How well `adapter` does on what the site holds out."""
        from training.alone import judge_adapter

        with tempfile.TemporaryDirectory() as folder:
            found = judge_adapter(
                self._recipe,
                self._settings.training.base_model,
                self._held_out,
                adapter=unpack(adapter, Path(folder) / "adapter"),
            )
        return Judged(loss=found.loss, num_samples=len(self._held_out))


class RaySites:
    """All sites, each an actor that works at the same time as the others."""

    def __init__(self, sites: Sequence[Settings], recipe: Recipe, workload: str) -> None:
        """Ray is initialised. `RefusedError` where a site has nothing to learn from."""
        workers = recipe.workers
        actor: Any = ray.remote(Site).options(
            num_cpus=workers.cpus_per_worker, num_gpus=workers.gpus_per_worker
        )
        self._actors = [actor.remote(settings) for settings in sites]
        _all([each.prepare.remote(workload) for each in self._actors])

    def learn(self, turn: int, start: Packed | None) -> list[Returned]:
        """See `training.federated.rounds.Sites`."""
        sent = ray.put(start)
        found: list[Returned] = _all([actor.learn.remote(turn, sent) for actor in self._actors])
        return found

    def judge(self, adapter: Packed) -> list[Judged]:
        """See `training.federated.rounds.Sites`."""
        sent = ray.put(adapter)
        found: list[Judged] = _all([actor.judge.remote(sent) for actor in self._actors])
        return found


def settings_of(home: Path, settings: Settings) -> Settings:
    """`settings` for the installation in `home`; `RefusedError` where there is none."""
    if not (home / "kalimtak.db").is_file():
        raise RefusedError(f"{home} is no installation: it holds no kalimtak.db")
    return settings.model_copy(
        update={"home": home.absolute(), "database_url": None, "artifacts_url": None}
    )


def run_federation(
    settings: Settings,
    homes: Sequence[Path],
    *,
    num_rounds: int,
    averaging: Averaging,
    out: Path,
    workload: str,
    on_round: Callable[[RoundReport], None],
) -> list[RoundReport]:
    """Learn together, and leave `out` with the adapter and a report, or nothing.

    Raises `RefusedError` where a site has nothing to learn from, and the TrainingErrors of
    the sites.
    """
    if len(homes) < 2 or len({home.resolve() for home in homes}) < len(homes):
        raise RefusedError("give at least two sites, each of them once")
    refuse_content(out)
    recipe = load_recipe(settings.training.recipe)
    found = [settings_of(home, settings) for home in homes]
    with ray_session(settings), tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "federation"
        reports = federate(
            RaySites(found, recipe, workload),
            num_rounds=num_rounds,
            averaging=averaging,
            out=target / ADAPTER_NAME,
            on_round=on_round,
        )
        told = {
            "sites": [str(home) for home in homes],
            "base_model": settings.training.base_model,
            "recipe": recipe.name,
            "averaging": asdict(averaging),
            "rounds": [_plain(report) for report in reports],
        }
        (target / REPORT_NAME).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        place(target, out)
    return reports


def _plain(report: RoundReport) -> dict[str, Any]:
    """JSON knows no infinity: without noise there is no ε."""
    return asdict(report) | {"epsilon": report.epsilon if math.isfinite(report.epsilon) else None}


def _all(tasks: Sequence[Any]) -> Any:
    """What all of them return; what the product refuses at a site is raised as it is."""
    try:
        return ray.get(list(tasks))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KalimtakError):
            raise error.cause from error
        raise


def _dataset(context: Context, folder: Path, workload: str) -> BuiltDataset:
    try:
        return build_dataset(
            context.database,
            context.store,
            workload=workload,
            settings=context.settings.curation,
            keyring=context.keyring,
            folder=folder / "dataset",
            clock=context.clock,
            new_id=context.new_id,
        )
    finally:
        context.database.close()
