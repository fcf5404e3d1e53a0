"""Personal data planted everywhere in what people write: none of it reaches an export."""

from __future__ import annotations

import polars as pl
import pytest

from benchmarks.curation_data import PII, Writer, planted
from registry import interactions
from registry.interactions import Feedback, Interaction
from tests.flows.curation.test_pipeline import KEYRING, NOW, World, database, world

__all__ = ["database", "world"]

OF_EACH = 500


def item(write: Writer, place: int, text: str) -> tuple[Interaction, str | None]:
    """An answer with `text` in its request, itself, its correction or its conversation."""
    asked, said, corrected, turns = write.prose(), write.prose(), None, None
    match place % 5:
        case 0:
            asked = text
        case 1:
            said = text
        case 2:
            corrected = text
        case 3:
            said, corrected = text, write.prose()
        case _:
            turns = [{"role": "user", "content": text}]
    found = Interaction(
        id=f"i{place:05}",
        created_at=NOW,
        input_text=asked,
        messages=turns,
        structured_prompt=said,
        model_output=said,
        quality_score=0.9,
        target_tool="email",
        external_user_id=f"user-{place % 20}",
    )
    return found, corrected


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_planted_personal_data_reaches_an_export(world: World) -> None:
    write, values = Writer(11), []
    with world.database.write() as session:
        for place in range(OF_EACH * len(PII)):
            value, text = planted(write, sorted(PII)[place % len(PII)])
            values.append(value)
            found, corrected = item(write, place, text)
            interactions.log(session, [found], keyring=KEYRING)
            interactions.add_feedback(
                session,
                Feedback(interaction_id=found.id, thumb=1, corrected_output=corrected),
                now=NOW,
                new_id=world.new_id,
            )
    report = world.curate()
    assert report.num_added > 0.8 * len(values)
    built = world.build("one")
    written = [path.read_text("utf-8") for path in built.folder.rglob("*.jsonl")]
    written += [str(pl.read_parquet(path).rows()) for path in built.folder.rglob("*.parquet")]
    assert len(written) == 20
    leaked = [value for value in values if any(value in text for text in written)]
    assert leaked == []
