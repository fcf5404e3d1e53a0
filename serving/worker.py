"""One model replica without Ray: engine, batches and live adapters behind `generate`."""

import random
from pathlib import Path

import torch

from registry.artifacts import ArtifactStore
from registry.base_model import resolve
from registry.settings import ServingSettings, Settings
from serving.adapters import AdapterKeeper
from serving.batching import Batcher
from serving.engine import Engine, EngineRequest, TorchEngine
from serving.errors import EngineError, NotLoadedError, OverloadedError, PromptTooLongError
from serving.jobs import Job, Reply, Status
from serving.sampling import SamplingParams

WAITING_BATCHES = 8
"""Batches that may wait before a replica refuses work."""


class ModelWorker:
    """Answers jobs; `keeper` brings its adapters in line with what is live."""

    def __init__(self, engine: Engine, store: ArtifactStore, settings: ServingSettings) -> None:
        self.keeper = AdapterKeeper(engine, store)
        self._batcher = Batcher(
            engine,
            max_batch_size=settings.max_batch_size,
            max_waiting=settings.max_batch_size * WAITING_BATCHES,
        )

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._batcher.start()

    async def stop(self) -> None:
        """End after the running batch."""
        await self._batcher.stop()

    async def generate(self, job: Job) -> Reply:
        """Answer a job; failures are told in the reply's status."""
        request = EngineRequest(
            messages=job.messages,
            adapter=job.digest,
            max_new_tokens=job.max_new_tokens,
            sampling=SamplingParams(temperature=job.temperature, top_p=job.top_p, seed=job.seed),
        )
        try:
            done = await self._batcher.generate(request)
        except (EngineError, OverloadedError) as error:
            return Reply(status=_status(error), detail=str(error))
        return Reply(
            status="ok",
            text=done.generation.text,
            tokens_input=done.generation.tokens_input,
            tokens_output=done.generation.tokens_output,
            queue_ms=done.queue_ms,
            processing_ms=done.generation.processing_ms,
        )


def make_engine(settings: Settings) -> TorchEngine:
    """The engine that the settings ask for, on a GPU where the replica reserves one."""
    torch.set_num_threads(settings.serving.torch_threads)
    on_gpu = settings.serving.replica_num_gpus > 0
    return TorchEngine(
        resolve(settings.training.base_model),
        device="cuda" if on_gpu else "cpu",
        dtype=torch.bfloat16 if on_gpu else torch.float32,
        rng=random.Random(),
    )


def make_worker(settings: Settings) -> ModelWorker:
    """A worker on the settings' base model and artifact store."""
    cache = Path(settings.home) / "cache"
    store = ArtifactStore(settings.resolved_artifacts_url, cache=cache)
    return ModelWorker(make_engine(settings), store, settings.serving)


def _status(error: EngineError | OverloadedError) -> Status:
    if isinstance(error, OverloadedError):
        return "overloaded"
    if isinstance(error, NotLoadedError):
        return "not_loaded"
    return "too_long" if isinstance(error, PromptTooLongError) else "failed"
