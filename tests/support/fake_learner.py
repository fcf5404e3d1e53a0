"""A learner that works without Ray: it writes an adapter folder and looks its scores up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flows.decisions.gate import Scores, ToolScore
from flows.learner import Evaluated, Progress, Trained


class FakeLearner:
    """Trains nothing. `accuracy` of the base and of each training to come, in turn."""

    base_model = "fake/base"
    recipe = "fake"
    objective = "sft"

    def __init__(
        self,
        accuracies: list[float],
        *,
        base_accuracy: float = 0.5,
        during_training: Callable[[], None] | None = None,
    ) -> None:
        self._accuracies = iter(accuracies)
        self._base_accuracy = base_accuracy
        self._during_training = during_training
        self.parents: list[Path | None] = []

    def train(
        self,
        *,
        run_id: str,
        train_file: Path,
        validation_file: Path,
        parent: Path | None,
        folder: Path,
        progress: Progress,
    ) -> Trained:
        """Write an adapter whose content tells its accuracy."""
        assert train_file.stat().st_size
        assert validation_file.stat().st_size
        self.parents.append(parent)
        if self._during_training is not None:
            self._during_training()
        adapter = folder / "adapter"
        adapter.mkdir(parents=True)
        (adapter / "accuracy.txt").write_text(f"{next(self._accuracies)} {run_id}")
        progress(100.0, "step 2/2, loss 1.000")
        return Trained(
            adapter=adapter,
            base_digest="sha256:fake",
            metrics={"steps": 2},
            losses=((1, 2.0), (2, 1.0)),
        )

    def evaluate(
        self,
        adapters: Mapping[str, Path | None],
        *,
        data: Path,
        shots: Path | None = None,  # noqa: ARG002
    ) -> dict[str, Evaluated]:
        """The accuracy that each adapter tells, the base's own for None."""
        num_samples = len(data.read_text(encoding="utf-8").splitlines())
        return {
            name: _evaluated(self._base_accuracy if path is None else _read(path), num_samples)
            for name, path in adapters.items()
        }


def _read(adapter: Path) -> float:
    return float((adapter / "accuracy.txt").read_text().split()[0])


def _evaluated(accuracy: float, num_samples: int) -> Evaluated:
    return Evaluated(
        scores=Scores(accuracy, num_samples, {"email": ToolScore(num_samples, accuracy)}),
        metrics={"accuracy": accuracy, "diversity": 0.8, "coherence": 0.9},
        by_tool={"email": {"accuracy": accuracy}},
    )
