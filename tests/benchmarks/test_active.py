import math

import pytest

from benchmarks.bench_active import BATCH, START_LABELS, labels_needed


def test_labels_between_two_batches_are_read_off_a_line() -> None:
    curve = [0.5, 0.7, 0.9]
    assert labels_needed(curve, 0.8) == pytest.approx(START_LABELS + 1.5 * BATCH)
    assert labels_needed(curve, 0.4) == START_LABELS
    assert math.isinf(labels_needed(curve, 0.95))
