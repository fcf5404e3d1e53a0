"""Puts the serving application on the Ray that the environment names, or takes it off.

    python -m flows.local.serve start|stop

A process of its own, so that what it leaves behind is only what runs in Ray.
"""

from __future__ import annotations

import sys

import ray
from ray import serve

from flows.environment import own_ray, ray_address
from registry.settings import Settings, load_settings
from serving.app import APP_NAME, start
from serving.app import stop as stop_application


def stop(settings: Settings) -> None:
    """Take the application off, so that replicas end what they have begun.

    On a cluster of one's own, Serve stays for whatever else it serves.
    """
    if ray_address(settings) != own_ray(settings):
        serve.delete(APP_NAME)
    else:
        stop_application()


def main() -> None:
    """Carry out the verb on the command line."""
    settings = load_settings()
    ray.init(address=ray_address(settings), log_to_driver=False)
    {"start": start, "stop": stop}[sys.argv[1]](settings)


if __name__ == "__main__":
    main()
