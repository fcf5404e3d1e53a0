"""Serves on a Ray cluster of its own until its standard input closes: `… settings.json`."""

from __future__ import annotations

import sys
from pathlib import Path

import ray

from registry.settings import Settings
from serving.app import start, stop

if __name__ == "__main__":
    settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _temp_dir=sys.argv[2],
        logging_level="warning",
        log_to_driver=False,
    )
    start(settings)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()
    stop()
    ray.shutdown()
