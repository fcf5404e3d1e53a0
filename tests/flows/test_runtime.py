"""A process that is told to end while it waits for Ray ends as its handler says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, signal, sys, threading, time
import ray
from flows.runtime import ray_session
from registry.settings import Settings

class Told(BaseException):
    pass

def handler(number, frame):
    raise Told

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
signal.signal(signal.SIGTERM, handler)

@ray.remote
def endless():
    time.sleep(600)

try:
    with ray_session(Settings()):
        waited_for = endless.remote()
        threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        ray.get(waited_for)
except Told:
    assert signal.getsignal(signal.SIGTERM) is handler
    print("told")
    sys.stdout.flush()
    os._exit(0)
"""


def test_a_handler_of_termination_is_heard_while_ray_is_waited_for(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "KALIMTAK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.endswith("told\n"), done.stderr
