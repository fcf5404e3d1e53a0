"""`kalimtak demo`: the whole loop on local Ray and Serve, in a few minutes on two cores."""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

import httpx
from ray import serve
from rich.console import Console

from flows.context import Context, open_context
from flows.demo.clock import SimulatedClock
from flows.demo.people import Answer, People, examine, held_out_requests
from flows.demo.progress import Phases
from flows.demo.report import print_story, write_reports
from flows.demo.results import Story, score
from flows.demo.rounds import Loop, Plan, run_round
from flows.errors import LocalError
from flows.ray_learner import RayLearner
from flows.runtime import ray_session
from registry import deployment
from registry.clock import Clock, utc_now
from registry.models import DEFAULT_WORKLOAD
from registry.settings import Settings
from serving.app import start as start_serving
from training.base_model.requests import Request

READY_TIMEOUT_S = 120.0
FREE_REQUESTS = (
    ("Write a professional email to request a meeting", "email"),
    ("Explain how binary search works, for beginners", "code"),
    ("Summarize the quarterly sales figures for the board", "report"),
    ("A poster of a cat in space, watercolor", "image"),
    ("Announce our new sourdough class, mention free parking", "social"),
)
"""Typed by hand; those of the simulated people come from the grammar."""


def run_demo(settings: Settings, *, seed: int, num_rounds: int, console: Console) -> int:
    """Run the loop and tell what came of it. 0: the model got better; 1: it did not.

    `settings` are those of `prepare`, and their home is an `own_folder`.
    """
    console.print(
        f"[bold]Kalimtak demo[/], seed {seed}. Serving, training and decisions are real; "
        "the people and the clock are simulated.\n"
    )
    plan = Plan(num_rounds=num_rounds)
    phases = Phases()
    clock = SimulatedClock(settings.home / "clock")
    context = open_context(settings, clock=clock)
    try:
        story = _run(context, clock, seed=seed, plan=plan, console=console, phases=phases)
    except httpx.HTTPError as error:
        raise LocalError(
            f"a request of the demo failed: {error or type(error).__name__}"
        ) from error
    story.phases, story.seconds = phases.seconds, phases.total
    write_reports(story, settings.home, now=utc_now())
    _tell(story, context, console)
    return 0 if story.improved else 1


def _run(
    context: Context,
    clock: SimulatedClock,
    *,
    seed: int,
    plan: Plan,
    console: Console,
    phases: Phases,
) -> Story:
    with _stage(context.settings, clock, console, phases) as url:
        loop = Loop(
            context=context,
            learner=RayLearner(context.settings),
            clock=clock,
            people=People(url, seed=seed, correction_rate=plan.correction_rate),
            url=url,
            held_out=held_out_requests(seed, plan.num_held_out),
            plan=plan,
            console=console,
            phases=phases,
        )
        before = examine(url, _free_requests(), version=None)
        story = Story(seed=seed, base=score(loop.examine(None, "held-out requests")))
        console.print(f"  the base model is rated good on {story.base.rated_good:.0%}")
        for number in range(1, plan.num_rounds + 1):
            story.rounds.append(run_round(loop, number))
        after = examine(url, _free_requests(), version=None)
        _conclude(story, context, before, after)
    return story


@contextmanager
def _stage(settings: Settings, clock: Clock, console: Console, phases: Phases) -> Iterator[str]:
    """Ray and the serving application for the time of the block; yields its address."""
    url = settings.serving.url
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ExitStack() as ray:
        ray.enter_context(ray_session(settings))
        try:
            with phases.phase("start"), console.status("starting Ray and Serve"):
                start_serving(settings, clock=clock)
                _wait_until_ready(url)
            yield url
        finally:
            # Ray prints that its controller has died, which is what it was told to do.
            with phases.phase("stop"), redirect_stdout(io.StringIO()):
                serve.shutdown()  # type: ignore[no-untyped-call]
                ray.close()


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(url):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url}/readyz did not answer within {READY_TIMEOUT_S:g} s")
        time.sleep(0.2)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False


def _free_requests() -> list[Request]:
    return [Request(text, tool, "en", {"task": text}) for text, tool in FREE_REQUESTS]


def _conclude(story: Story, context: Context, before: list[Answer], after: list[Answer]) -> None:
    with context.database.read() as session:
        champion = deployment.desired(session, DEFAULT_WORKLOAD).champion
    story.examples = [
        (then.request.text, then.output, now.output)
        for then, now in zip(before, after, strict=True)
    ]
    if champion is None:
        return
    story.champion = champion.version
    story.champion_score = next(
        (turn.score for turn in story.rounds if turn.version == champion.version), None
    )


def _tell(story: Story, context: Context, console: Console) -> None:
    print_story(story, console)
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in story.phases.items())
    console.print(f"Time: {story.seconds:.0f} s ({times})", highlight=False)
    if story.improved:
        console.print(
            f"[green]The model got better from use:[/] rated good on "
            f"{story.base.rated_good:.0%} → {story.base.rated_good + story.gain:.0%} "
            "of requests it had never seen."
        )
    else:
        console.print(
            "[red]The model did not get better[/]: no version that won is clearly better."
        )
    if story.worse_tools:
        console.print(f"[yellow]Worse than at the start:[/] {', '.join(story.worse_tools)}")
    home = context.settings.home
    console.print(f"Report: {home / 'report.html'}   Summary: {home / 'summary.json'}")
