"""[ray] Ray Train's trainer for workers that meet by themselves and bring their own data.

Imports no torch: the controller of a run loads this, and the workers wait for the controller.
"""

from __future__ import annotations

from typing import Any

from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class SharedDevices(Backend):
    """Lets the workers of a node see each other's GPUs, as Ray's own for torch does."""

    share_cuda_visible_devices = True


class SharedDevicesConfig(BackendConfig):
    """What is set up in workers before they train: their devices, and no process group."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray calls when workers start."""
        return SharedDevices


class WorkerTrainer(DataParallelTrainer):
    """Ray's `TorchTrainer` less two things that cost seconds before the first step.

    That is the import of torch in the controller, and a process that deals out Ray datasets,
    of which there are none.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, DatasetsCallback)]
