"""What model names stand for."""

from registry.deployment import DesiredState, LiveVersion, unserved
from serving.naming import Target, names, resolve

ODD = LiveVersion("org/base:7b-ft-1", "a" * 64)
STATES = {
    "default": unserved("default"),
    "prompts": DesiredState("prompts", 1, ODD, None, None, 0.0, None),
}


def found(model: str) -> Target | None:
    return resolve(model, STATES, base_model="org/base:7b")


def test_a_name_stands_for_a_workload_and_a_version() -> None:
    assert found("kalimtak") == found("default") == Target("default")
    assert found("prompts") == Target("prompts")
    assert found("prompts:champion") == Target("prompts", "champion")
    assert found("prompts:org/base:7b-ft-1") == Target("prompts", ODD.version)
    assert found(ODD.version) == Target("prompts", ODD.version)
    assert found("org/base:7b") == Target("default", "org/base:7b")
    assert found("prompts:org/base:7b") == Target("prompts", "org/base:7b")


def test_others_stand_for_nothing() -> None:
    assert [found(name) for name in ("", ":", "gpt-4o", "prompts:", ":champion")] == [None] * 5


def test_every_listed_name_stands_for_something() -> None:
    listed = names(STATES, base_model="org/base:7b")
    assert listed == [
        "kalimtak",
        "kalimtak:champion",
        "prompts",
        "prompts:champion",
        ODD.version,
        "org/base:7b",
    ]
    assert None not in [found(name) for name in listed]
