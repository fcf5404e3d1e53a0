"""Puts the serving application on a Ray, or takes it off.

    python -m flows.local.serve start
    python -m flows.local.serve stop|leave ADDRESS

`start` uses the Ray that settings and environment name. `stop` also stops Serve; on a cluster of
one's own, which may serve something else, `leave` takes off the application alone. A process of
its own, so that what it leaves behind is only what runs in Ray.
"""

from __future__ import annotations

import sys

import ray
from ray import serve

from flows.environment import ray_address
from registry.settings import load_settings
from serving.app import APP_NAME, start, stop


def main() -> None:
    """Carry out the verb on the command line."""
    verb, *addresses = sys.argv[1:]
    settings = load_settings()
    ray.init(address=addresses[0] if addresses else ray_address(settings), log_to_driver=False)
    if verb == "start":
        start(settings)
    elif verb == "stop":
        stop()
    elif verb == "leave":
        serve.delete(APP_NAME)


if __name__ == "__main__":
    main()
