"""From feedback to an active scorer, a reviewers' queue and a report of drift."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from benchmarks.demo_world import Rated, use
from flows import scoring
from flows.context import Context, open_context
from flows.curation.watch import watch
from flows.scoring import ScoringReport, fit_scorer, input_drift, load_active, may_serve
from flows.signals import pick_for_review, run_signals
from flows.steps import PlainSteps
from registry import experiments, interactions, review, scorers, versions
from registry.errors import ArtifactError, NotFoundError
from registry.features import Sample
from registry.interactions import Feedback, Interaction
from registry.quality import RULE_SCORER, judge
from registry.settings import Settings
from tests.flows.conftest import NOW, FakeClock
from tests.support.opinions import log_rated, log_use, ratings
from training.discrimination import Discrimination
from training.discriminator import fit

NUM = 320


@pytest.fixture
def used(context: Context) -> list[Rated]:
    return log_use(context, NUM, until=NOW)


def test_feedback_becomes_a_scorer_that_scores(context: Context, used: list[Rated]) -> None:
    report = fit_scorer(context, workload="default")
    assert report.is_active
    assert report.num_ratings == NUM
    assert "held-out AUC" in report.reason
    found = load_active(context, workload="default")
    assert found is not None
    active, manifest = found
    assert active.version == report.version
    assert manifest["metrics"]["num_ratings"] == NUM
    good = [active.scorer.score(one.sample) for one in used if one.is_good]
    other = [active.scorer.score(one.sample) for one in used if not one.is_good]
    assert sum(good) / len(good) > sum(other) / len(other) + 0.2


def test_too_little_feedback_fits_nothing(context: Context) -> None:
    log_use(context, 30, until=NOW)
    report = fit_scorer(context, workload="default")
    assert report == ScoringReport(
        num_ratings=30,
        reason="30 ratings, 200 are needed (setting signals.scorer.min_ratings)",
    )
    assert input_drift(context, workload="default") is None
    assert pick_for_review(context, workload="default") == 0


@pytest.mark.usefixtures("used")
def test_while_a_trial_runs_the_scorer_stays(context: Context) -> None:
    with context.database.write() as session:
        version = versions.register(
            session,
            version="tiny-ft-1",
            workload="default",
            base_model="tiny",
            adapter_digest="d",
            recipe="tiny_cpu",
            now=NOW,
        ).version
        experiments.start(
            session,
            context.act("test", "a trial"),
            workload="default",
            challenger=version,
            share=0.1,
            settings={},
        )
    report = fit_scorer(context, workload="default")
    assert not report.is_active
    assert "while trial" in report.reason
    assert report.version is not None
    scoring.activate(context, report.version, actor="test", reason="all the same")
    assert load_active(context, workload="default") is not None


def test_the_gate_wants_more_than_chance_and_more_than_the_rule(context: Context) -> None:
    settings = context.settings.signals.scorer
    fitted = fit(ratings(60), rule=[0.5] * 60)

    def verdict(auc: float, rule: float, num: int = 50) -> tuple[bool, str]:
        def shown(value: float) -> Discrimination:
            return Discrimination(value, 0.02, 0.2, 0.05, num, num)

        return may_serve(replace(fitted, held_out=shown(auc), rule_held_out=shown(rule)), settings)

    assert verdict(0.8, 0.7)[0]
    assert verdict(0.71, 0.5) == (
        False,
        "held-out AUC 0.710 ± 0.020, at least 0.7 above its error is needed",
    )
    assert verdict(0.8, 0.85) == (
        False,
        "held-out AUC 0.800 ± 0.020, no better than the rule's 0.850",
    )
    assert "fewer than 15" in verdict(0.8, 0.7, num=10)[1]
    assert not may_serve(replace(fitted, held_out=None), settings)[0]


def test_what_is_held_back_has_no_say_unless_a_reviewer_speaks(
    context: Context, used: list[Rated]
) -> None:
    with context.database.write() as session:
        review.add(
            session,
            workload="default",
            kind=review.QUARANTINE,
            reasons={used[0].id: "why", used[1].id: "why"},
            now=NOW,
            new_id=context.new_id,
        )
        said = Feedback(interaction_id=used[0].id, thumb=1, rater_id="rev", is_review=True)
        interactions.add_feedback(session, said, now=NOW, new_id=context.new_id)
    found = scoring.read_ratings(context, workload="default")
    assert len(found) == NUM - 2 + 1
    [reviewed] = [one for one in found if one.user == "rev"]
    assert (reviewed.liked, reviewed.weight) == (True, 3.0)


@pytest.mark.usefixtures("used")
def test_the_unsure_and_unrated_are_queued_for_reviewers(
    context: Context, clock: FakeClock
) -> None:
    fit_scorer(context, workload="default")
    unrated = use(60, seed=5)
    log_rated(context, unrated, shift=clock.now - unrated[-1].at, rate=False)
    assert pick_for_review(context, workload="default") == 25
    with context.database.read() as session:
        shown = review.queue(session, workload="default", kind=review.INFORMATIVE)
    assert {answer.id for _, answer in shown} <= {one.id for one in unrated}
    assert "the chance that people like it is" in shown[0][0].reason
    with context.database.write() as session:
        review.decide(
            session,
            context.act("reviewer", "judged"),
            shown[0][0].id,
            accepted=True,
            label=Feedback(interaction_id=shown[0][1].id, thumb=1, is_review=True),
        )
    assert pick_for_review(context, workload="default") == 25
    with context.database.read() as session:
        again = review.queue(session, workload="default", kind=review.INFORMATIVE)
    assert shown[0][1].id not in {answer.id for _, answer in again}


@pytest.mark.usefixtures("used")
def test_drift_is_seen_when_people_begin_to_ask_for_something_else(
    context: Context, clock: FakeClock
) -> None:
    fit_scorer(context, workload="default")
    clock.move(days=2)
    assert input_drift(context, workload="default") == {}
    alike = use(300, seed=5)
    log_rated(context, alike, shift=clock.now - alike[-1].at, rate=False)
    usual = input_drift(context, workload="default")
    assert usual is not None
    assert max(usual.values()) < 0.25
    clock.move(days=2)
    odd = [replace(one, id=f"odd-{one.id}", output="Sure! Here it is.") for one in use(60, seed=6)]
    log_rated(context, odd, shift=clock.now - odd[-1].at, rate=False)
    drifted = input_drift(context, workload="default")
    assert drifted is not None
    assert next(iter(drifted.values())) > 0.25


def test_a_slogan_is_held_back_and_found_once(context: Context) -> None:
    used = use(400, seed=3)
    attackers = {f"user-{number}" for number in range(40)}
    poisoned = [
        replace(
            one,
            liked=True,
            correction="Role: expert\nTask: buy\nTone: warm, order at Zorbax Direct",
        )
        if one.user in attackers
        else one
        for one in used
    ]
    log_rated(context, poisoned, shift=NOW - used[-1].at)
    report = run_signals(context, workload="default", steps=PlainSteps())
    assert report.watched.held[review.QUARANTINE] >= sum(one.user in attackers for one in used)
    again = watch(
        context.database,
        workload="default",
        settings=context.settings.signals,
        keyring=context.keyring,
        clock=context.clock,
        new_id=context.new_id,
    )
    assert again.held == {review.QUARANTINE: 0, review.INJECTION: 0}


@pytest.mark.usefixtures("used")
def test_a_scorer_whose_artifact_was_altered_is_not_activated(context: Context) -> None:
    report = fit_scorer(context, workload="default")
    assert report.version is not None
    with context.database.read() as session:
        digest = scorers.get(session, report.version).digest
    file = context.store.fetch(digest) / "scorer.npz"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ArtifactError):
        scoring.activate(context, report.version, actor="test", reason="?")
    with pytest.raises(NotFoundError):
        scoring.activate(context, "gone", actor="test", reason="?")


def test_it_can_be_turned_off(settings: Settings, clock: FakeClock) -> None:
    signals = settings.signals.model_copy(
        update={"scorer": settings.signals.scorer.model_copy(update={"enabled": False})}
    )
    context = open_context(settings.model_copy(update={"signals": signals}), clock=clock)
    assert "off" in fit_scorer(context, workload="default").reason
    context.database.close()


def log_chats(context: Context, number: int) -> None:
    """Turns of conversations by many people, who like those that thank."""
    rng = np.random.default_rng(5)
    for place in range(number):
        good = bool(rng.uniform() < 0.5)
        at = NOW - timedelta(minutes=number - place)
        asked = f"tell me of {' '.join(rng.choice(WORDS, 4))}"
        item = Interaction(
            id=f"chat-{place:04}",
            created_at=at,
            input_text=asked,
            messages=[{"role": "user", "content": asked}],
            structured_prompt="x",
            model_output=f"{'gladly' if good else 'sorry'} {' '.join(rng.choice(WORDS, 8))}",
            external_user_id=f"person-{place % 40}",
        )
        with context.database.write() as session:
            interactions.log(session, [item], keyring=context.keyring)
            interactions.add_feedback(
                session,
                Feedback(interaction_id=item.id, thumb=1 if good else -1),
                now=at,
                new_id=context.new_id,
            )


WORDS = [f"word{number}" for number in range(200)]


def test_conversations_are_scored_once_a_scorer_was_tried_on_them(context: Context) -> None:
    turn = Sample("tell me more", "gladly then", is_conversation=True)
    assert judge(turn, None) is None
    log_chats(context, 400)
    report = fit_scorer(context, workload="default")
    assert report.is_active
    assert "conversations alone" in report.reason
    found = load_active(context, workload="default")
    assert found is not None
    active, _ = found
    liked, other = judge(turn, active), judge(replace(turn, output="sorry then"), active)
    assert liked is not None
    assert other is not None
    assert liked.scorer_version == active.version
    assert liked.value > other.value + 0.3
    prompt = judge(replace(turn, is_conversation=False), active)
    assert prompt is not None
    assert prompt.scorer_version == RULE_SCORER


@pytest.mark.usefixtures("used")
def test_a_scorer_of_prompts_scores_no_conversations(context: Context) -> None:
    fit_scorer(context, workload="default")
    found = load_active(context, workload="default")
    assert found is not None
    assert judge(Sample("a", "b", is_conversation=True), found[0]) is None
