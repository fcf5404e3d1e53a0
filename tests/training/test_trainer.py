"""What waits before the first step of a run."""

import os
import subprocess
import sys


def test_the_controller_of_a_run_imports_no_torch() -> None:
    loads = "import sys, training.trainer, training.job; print('torch' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", loads],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert found.stdout.strip() == "False"
