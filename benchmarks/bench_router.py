"""What the router costs: python -m benchmarks.bench_router [--quick] [--out FILE]

The product's router, with every caller checked and counted and every answer durable before it
leaves, on a model that answers at once; beside it, in the same cluster and behind the same
HAProxy, an ingress that passes requests to the same model and does nothing else. A client
process of its own asks both, in turn, over 1, 16 and 64 kept connections. Beside what a busy
machine lets through, it tells what a request takes of the processors, all of Serve included.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from benchmarks.http_load import Outcome, read_outcomes
from benchmarks.results import Figure, write_results
from benchmarks.serving_process import System, free_port, serving, stats_port
from registry import keys
from registry.clock import new_id, utc_now
from registry.crypto import load_keyring
from registry.db import open_database
from registry.deployment import Act
from registry.settings import RaySettings, ServingSettings, Settings
from registry.settings_access import AuthSettings, LimitSettings

CONNECTIONS = (1, 16, 64)
PATHS = {"router": "/api/generate", "bare ingress": "/bare"}
WARM_UP_S = 2.0
GOAL = 0.8
RATE = "10000000/hour"
"""Each request is counted, and none is one too many."""


@dataclass(frozen=True)
class Speed:
    """One measurement."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failed: int
    processor_ms: float
    """For each request, of all the cluster's processes; the client's are not among them."""


def speed(outcomes: Sequence[Outcome], processor_s: float) -> Speed:
    """Answers per second and latencies, once warm; processor time over all of them."""
    each_ms = 1000 * processor_s / max(len(outcomes), 1)
    warm = min(outcome.at for outcome in outcomes) + WARM_UP_S
    counted = [outcome for outcome in outcomes if outcome.at >= warm]
    answered = [outcome.seconds * 1000 for outcome in counted if outcome.status == 200]
    if len(answered) < 2:
        return Speed(0.0, 0.0, 0.0, len(counted), each_ms)
    span = max(outcome.at + outcome.seconds for outcome in counted) - warm
    cuts = quantiles(answered, n=100)
    failed = len(counted) - len(answered)
    return Speed(len(answered) / span, cuts[49], cuts[98], failed, each_ms)


def ask(
    system: System, path: str, *, connections: int, seconds: float, headers: Sequence[str]
) -> Speed:
    """Let a client process ask for a while."""
    settings = system.settings
    out = settings.home / "load.json"
    command = [sys.executable, "-m", "benchmarks.http_load", str(settings.serving.port), str(out)]
    command += ["--path", path, "--connections", str(connections)]
    command += ["--seconds", str(WARM_UP_S + seconds)]
    for header in headers:
        command += ["--header", header]
    before = system.processor_s()
    subprocess.run(command, check=True)
    return speed(read_outcomes(out), system.processor_s() - before)


def make_key(settings: Settings) -> str:
    """An API key that speaks for many users."""
    keyring = load_keyring(settings.home)
    database = open_database(settings.resolved_database_url)
    with database.write() as session:
        act = Act("bench_router", "to be measured with", utc_now(), keyring, new_id)
        made = keys.create(session, act, name="bench", role="user", subject=None, lifetime=None)
    database.close()
    return made.text


def figures(found: dict[tuple[str, int], list[Speed]]) -> list[Figure]:
    """Medians over the rounds, the router beside the bare ingress."""
    shown = []
    for connections in sorted({connections for _, connections in found}):
        ours, bare = (found[name, connections] for name in PATHS)
        rate = median(speed.per_second for speed in ours)
        bare_rate = median(speed.per_second for speed in bare)
        at = f"{connections} connection{'s' * (connections > 1)}"
        shown += [
            Figure(
                f"requests at {at}",
                rate,
                "requests/s",
                peer="bare ingress",
                peer_value=bare_rate,
                goal=f"≥ {GOAL:g} of the bare ingress",
                holds=rate >= GOAL * bare_rate,
            ),
            Figure(
                f"p50 at {at}",
                median(speed.p50_ms for speed in ours),
                "ms",
                peer="bare ingress",
                peer_value=median(speed.p50_ms for speed in bare),
            ),
            Figure(
                f"p99 at {at}",
                median(speed.p99_ms for speed in ours),
                "ms",
                peer="bare ingress",
                peer_value=median(speed.p99_ms for speed in bare),
            ),
            Figure(
                f"processor time of a request at {at}",
                median(speed.processor_ms for speed in ours),
                "ms",
                peer="bare ingress",
                peer_value=median(speed.processor_ms for speed in bare),
            ),
            Figure(f"not answered at {at}", sum(speed.failed for speed in ours), "requests"),
        ]
    return shown


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write the result file."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    rounds, seconds = (1, 2.0) if options.quick else (3, 8.0)
    found: dict[tuple[str, int], list[Speed]] = {}
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            home=Path(folder) / "home",
            serving=ServingSettings(port=free_port()),
            ray=RaySettings(haproxy_metrics_port=free_port(), haproxy_stats_port=stats_port()),
            auth=AuthSettings(enabled=True),
            limits=LimitSettings(service=RATE),
        )
        with serving(settings, noop=True) as system:
            shown = [f"Authorization: Bearer {make_key(settings)}"]
            for _ in range(rounds):
                for connections in CONNECTIONS:
                    for name, path in PATHS.items():
                        headers = shown if name == "router" else []
                        result = ask(
                            system, path, connections=connections, seconds=seconds, headers=headers
                        )
                        found.setdefault((name, connections), []).append(result)
    measured = figures(found)
    table = Table("figure", "value", "unit", "bare ingress", "ratio")
    for figure in measured:
        peer = "" if figure.peer_value is None else f"{figure.peer_value:.1f}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(figure.name, f"{figure.value:.1f}", figure.unit, peer, ratio)
    Console().print(table)
    sizes = {"connections": CONNECTIONS, "seconds": seconds, "rounds": rounds}
    sizes |= {"routers": settings.serving.num_routers}
    write_results("router", measured, sizes=sizes, out=options.out)


if __name__ == "__main__":
    main()
