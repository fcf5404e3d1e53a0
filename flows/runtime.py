"""The connection to Ray, for the flows that train and evaluate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from flows.environment import ray_address, ray_num_cpus, ray_temp_dir
from registry.settings import Settings


@contextmanager
def ray_session(settings: Settings) -> Iterator[None]:
    """Ray for the time of the block: the running cluster, else one of this process alone."""
    if ray.is_initialized():
        yield
        return
    address = ray_address(settings)
    if address is not None:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    else:
        ray.init(
            num_cpus=ray_num_cpus(settings),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=str(ray_temp_dir(settings)),
        )
    try:
        yield
    finally:
        ray.shutdown()
