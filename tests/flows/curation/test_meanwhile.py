"""What happens to interactions between being read and being written counts."""

from collections.abc import Callable
from datetime import datetime

from sqlmodel import col, select

from flows.curation.pipeline import CurationReport, curate
from registry import privacy
from registry.deployment import Act
from registry.models import TrainingData, UserInteraction
from registry.settings_curation import CurationSettings
from tests.flows.curation.test_pipeline import KEYRING, World, database, world

__all__ = ["database", "world"]


def curate_while(world: World, reading_is_over: Callable[[], datetime]) -> CurationReport:
    """A pass that asks for the time twice, the second time when it has read."""
    moments = iter([lambda: world.now, reading_is_over])
    return curate(
        world.database,
        workload="default",
        settings=CurationSettings(),
        keyring=KEYRING,
        clock=lambda: next(moments)(),
        new_id=world.new_id,
    )


def test_a_sample_whose_author_opts_out_while_a_pass_reads_it_again_stays_out(
    world: World,
) -> None:
    world.log("ann", external_user_id="ann")
    world.rate("ann", 1)
    world.curate()
    world.rate("ann", 1)

    def reading_is_over() -> datetime:
        with world.database.write() as session:
            act = Act("test", "asked to", world.now, KEYRING, world.new_id)
            privacy.set_consent(session, act, "ann", "no_training")
        return world.now

    curate_while(world, reading_is_over)
    with world.database.read() as session:
        (sample,) = session.exec(select(TrainingData)).all()
    assert (sample.is_selected, sample.rejection_reason) == (False, privacy.OPTED_OUT)


def test_who_opts_out_or_goes_while_a_pass_runs_is_not_learned_from(world: World) -> None:
    for name in ("stays", "opts out", "is erased", "is erased while held"):
        insult = "you stupid bitch, " if name.endswith("held") else ""
        world.log(name, external_user_id=name, input_text=f"{insult}a mail about {name} cats")
        world.rate(name, 1)

    def reading_is_over() -> datetime:
        with world.database.write() as session:
            act = Act("test", "asked to", world.now, KEYRING, world.new_id)
            privacy.set_consent(session, act, "opts out", "no_training")
            for name in ("is erased", "is erased while held"):
                session.delete(session.get_one(UserInteraction, name))
        return world.now

    report = curate_while(world, reading_is_over)
    assert report.num_held == 1
    assert set(world.samples()) == {"stays"}


def test_who_allows_it_again_is_learned_from_by_what_was_said_meanwhile(world: World) -> None:
    for name in ("still liked", "disliked meanwhile", "rated meanwhile"):
        world.log(name, external_user_id="ann", input_text=f"a mail about {name} cats")
    for name in ("still liked", "disliked meanwhile"):
        world.rate(name, 1)
    world.curate()

    def say(consent: privacy.Consent) -> None:
        with world.database.write() as session:
            act = Act("test", "asked to", world.now, KEYRING, world.new_id)
            privacy.set_consent(session, act, "ann", consent)

    say("no_training")
    world.rate("disliked meanwhile", -1)
    world.rate("rated meanwhile", 1)
    world.curate()
    say("granted")
    world.curate()
    with world.database.read() as session:
        chosen = session.exec(
            select(TrainingData.source_interaction_id).where(
                col(TrainingData.is_selected), col(TrainingData.label).is_(None)
            )
        ).all()
    assert sorted(chosen) == ["rated meanwhile", "still liked"]
