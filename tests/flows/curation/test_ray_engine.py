"""Ray Data gives what one process gives, row for row."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pytest
import ray
from sqlmodel import select

from benchmarks.curation_data import Writer
from flows.context import Context
from flows.curation.engine import Engine, LocalEngine
from flows.curation.neardup import candidate_pairs
from flows.curation.pipeline import curate
from flows.curation.ray_engine import RayEngine
from flows.curation.signatures import LongTexts, sign
from registry import interactions
from registry.interactions import Feedback, Interaction
from registry.models import TrainingData

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield RayEngine(partition_rows=37)
    ray.shutdown()


def log_varied(context: Context, number: int) -> None:
    """Good and bad answers, near-duplicates, personal data and conversations."""
    write = Writer(5)
    texts = [write.prose() for _ in range(number // 2)]
    texts += [write.edited(text) for text in texts]
    texts[3] += " mail me at bob@example.com"
    now = context.clock()
    with context.database.write() as session:
        for place, text in enumerate(texts):
            item = Interaction(
                id=f"i{place:05}",
                created_at=now,
                input_text=text,
                structured_prompt=write.prose() if place % 2 else text,
                model_output="x",
                external_user_id=f"user-{place % 70}",
                messages=[{"role": "user", "content": text}] if place % 5 == 0 else None,
                quality_score=None if place % 5 == 0 else (place % 10) / 9,
            )
            interactions.log(session, [item], keyring=context.keyring)
            interactions.add_feedback(
                session,
                Feedback(interaction_id=item.id, thumb=-1 if place % 7 == 0 else 1),
                now=now,
                new_id=context.new_id,
            )


def curated(context: Context, engine: Engine) -> list[tuple[object, ...]]:
    names = iter(range(100_000))
    curate(
        context.database,
        workload="default",
        settings=context.settings.curation,
        keyring=context.keyring,
        clock=context.clock,
        new_id=lambda: f"{next(names):06}",
        engine=engine,
    )
    with context.database.read() as session:
        rows = session.exec(select(TrainingData)).all()
    return sorted(
        (row.content_hash, row.source_interaction_id, row.target_output, row.split, row.language)
        for row in rows
    )


def test_the_samples_are_the_same_row_for_row(context: Context, engine: RayEngine) -> None:
    log_varied(context, 300)
    there = curated(context, engine)
    assert len(there) > 50
    with context.database.write() as session:
        for table in ("training_data", "curation_runs"):
            session.connection().exec_driver_sql(f"DELETE FROM {table}")
    assert curated(context, LocalEngine()) == there


def test_a_shuffle_by_band_finds_the_same_pairs(engine: RayEngine) -> None:
    write = Writer(6)
    texts = [write.templated() for _ in range(300)]
    both = [*texts, *map(write.edited, texts)]
    signatures = LongTexts(both, sign(pl.Series(both), min_words=12)).signatures
    found = engine.candidate_pairs(signatures)
    assert found.tolist() == candidate_pairs(signatures).tolist()
    assert len(found) > 300
