"""One model replica without Ray: an engine and its live adapters behind `generate`."""

import random
from collections.abc import AsyncGenerator
from pathlib import Path

import torch

from registry.artifacts import ArtifactStore
from registry.base_model import resolve
from registry.settings import ServingSettings, Settings
from serving.adapters import AdapterKeeper, OwnBase
from serving.engine.batching import ThreadedEngine
from serving.engine.continuous import Limits, TorchEngine
from serving.engine.protocol import Engine
from serving.engine.vllm import VllmEngine
from serving.jobs import Delta, Job, Reply

WAITING_BATCHES = 8
"""Requests that may wait, in multiples of those that run, before a replica refuses work."""


class ModelWorker:
    """Answers jobs; `keeper` brings its adapters in line with what is live."""

    def __init__(self, engine: Engine, store: ArtifactStore, base: OwnBase | None) -> None:
        self.keeper = AdapterKeeper(engine, store, base=base)
        self._engine = engine

    @property
    def alive(self) -> bool:
        """Whether the engine works."""
        return self._engine.alive

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._engine.start()

    async def stop(self) -> None:
        """End; jobs that are not answered yet fail."""
        await self._engine.stop()

    async def generate(self, job: Job) -> Reply:
        """Answer a job; failures are told in the reply's status. Cancelling ends the work."""
        return await self._engine.generate(job)

    def stream(self, job: Job) -> AsyncGenerator[Delta | Reply, None]:
        """The same, piece by piece: deltas that make up the reply's text, then the reply.

        Closing the iterator ends the work.
        """
        return self._engine.stream(job)


def make_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for; ours on a GPU where the replica reserves one."""
    serving = settings.serving
    if serving.engine == "vllm" and serving.vllm_url is not None:
        return VllmEngine(serving.vllm_url, base=settings.training.base_model)
    torch.set_num_threads(serving.torch_threads)
    on_gpu = serving.replica_num_gpus > 0
    core = TorchEngine(
        resolve(settings.training.base_model),
        device="cuda" if on_gpu else "cpu",
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        limits=limits(serving),
        rng=random.Random(),
    )
    return ThreadedEngine(core)


def limits(serving: ServingSettings) -> Limits:
    """What a replica takes on."""
    return Limits(
        max_running=serving.max_batch_size,
        max_waiting=serving.max_batch_size * WAITING_BATCHES,
        cache_tokens=serving.kv_cache_tokens,
        gpu_part=min(1.0, serving.replica_num_gpus or 1.0),
    )


def make_worker(settings: Settings) -> ModelWorker:
    """A worker on the settings' base model and artifact store."""
    cache = Path(settings.home) / "cache"
    store = ArtifactStore(settings.resolved_artifacts_url, cache=cache)
    # vLLM's server has loaded a base of its own.
    has_base = settings.serving.engine != "vllm"
    base = OwnBase(settings.training.base_model) if has_base else None
    return ModelWorker(make_engine(settings), store, base)
