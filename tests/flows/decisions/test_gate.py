import pytest

from flows.decisions.gate import Scores, ToolScore, decide
from registry.settings import GateSettings

SETTINGS = GateSettings()


def scores(overall: float, **tools: tuple[int, float]) -> Scores:
    return Scores(overall, 100, {tool: ToolScore(*value) for tool, value in tools.items()})


def test_an_equal_version_passes() -> None:
    assert decide(scores(0.5, email=(50, 0.5)), scores(0.5, email=(50, 0.5)), SETTINGS).passed


def test_a_tool_that_got_worse_is_named_even_when_the_whole_is_better() -> None:
    decision = decide(
        scores(0.5, email=(50, 0.5), code=(50, 0.5)),
        scores(0.7, email=(50, 1.0), code=(50, 0.3)),
        SETTINGS,
    )
    assert not decision.passed
    assert decision.reasons[0].startswith("code: accuracy 0.500 → 0.300")


def test_a_worse_whole_is_refused() -> None:
    assert not decide(scores(0.5), scores(0.37), SETTINGS).passed
    assert decide(scores(0.5), scores(0.39), SETTINGS).passed


def test_one_answer_of_few_is_no_loss_and_one_in_ten_of_many_is() -> None:
    def loses_a_tenth_on(num: int) -> bool:
        before, after = (Scores(0.9, 500, {"code": ToolScore(num, x)}) for x in (0.6, 0.5))
        return not decide(before, after, SETTINGS).passed

    assert not loses_a_tenth_on(20)
    assert loses_a_tenth_on(500)


@pytest.mark.parametrize("before", [{}, {"code": (9, 0.9)}])
def test_a_tool_with_few_samples_is_reported_not_judged(
    before: dict[str, tuple[int, float]],
) -> None:
    decision = decide(scores(0.5, **before), scores(0.5, code=(9, 0.0)), SETTINGS)
    assert decision.passed
    assert "code: not judged on 9 samples" in decision.reasons


def test_nothing_held_out_is_no_proof() -> None:
    assert not decide(scores(0.5), Scores(1.0, 0), SETTINGS).passed
