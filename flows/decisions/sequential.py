"""Statistics that stay valid however often one looks.

A fixed-sample test looked at every 15 minutes promotes by chance; these do not:
an asymptotic confidence sequence for a difference of means (Waudby-Smith, Arbour, Sinha,
Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences",
Annals of Statistics 2024), and a beta-binomial mixture e-process for a rate (Robbins 1970;
Howard, Ramdas, McAuliffe & Sekhon 2021), which Ville's inequality turns into an alarm.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaln

Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Count, mean and unbiased variance of one arm."""

    num: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """Summarise `values`; an empty arm has mean 0, and fewer than two have variance 0."""
        num = len(values)
        mean = math.fsum(values) / num if num else 0.0
        squares = math.fsum((value - mean) ** 2 for value in values)
        return cls(num, mean, squares / (num - 1) if num > 1 else 0.0)


@dataclass(frozen=True)
class Interval:
    """A difference with bounds that hold at all times at once."""

    estimate: float
    lower: float
    upper: float


def difference(
    control: Sample, treatment: Sample, *, alpha: float, tuned_for: float
) -> Interval | None:
    """Confidence sequence at level 1 - `alpha` for treatment mean minus control mean.

    With n = n0 + n1 and σ² = n (s1²/n1 + s0²/n0), the margin is
    σ √(2 (nρ² + 1) / (n²ρ²) · ln(√(nρ² + 1) / α)). It is narrowest near n = `tuned_for`,
    which must be fixed before the experiment. None while an arm has fewer than two values.
    """
    if control.num < 2 or treatment.num < 2:
        return None
    num = control.num + treatment.num
    rho2 = _rho_squared(alpha=alpha, tuned_for=tuned_for)
    variance = num * (treatment.variance / treatment.num + control.variance / control.num)
    scaled = num * rho2 + 1
    margin = math.sqrt(
        variance * 2 * scaled / (num**2 * rho2) * math.log(math.sqrt(scaled) / alpha)
    )
    estimate = treatment.mean - control.mean
    return Interval(estimate, estimate - margin, estimate + margin)


def _rho_squared(*, alpha: float, tuned_for: float) -> float:
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tuned_for


@dataclass(frozen=True)
class RateAlarm:
    """Evidence that a rate exceeds a line: alarm where the e-value passes 1/α."""

    num: int
    hits: int
    line: float
    log_e_value: float
    alarm: bool


def rate_exceeds(
    hits: int, num: int, *, line: float, alpha: float, concentration: float = 20
) -> RateAlarm:
    """E-process of `hits` in `num` trials against rate ≤ `line`, at this moment.

    E = B(kq + S, k(1 - q) + t - S) / B(kq, k(1 - q)) / (q^S (1 - q)^(t - S)) with q = `line`,
    k = `concentration`. An alarm needs E > 1/α and S/t > q.
    """
    log_e = _log_e(np.array([hits]), np.array([num]), line=line, concentration=concentration)[0]
    return _state(hits, num, float(log_e), line=line, alpha=alpha)


def first_alarm(
    outcomes: Sequence[bool], *, line: float, alpha: float, concentration: float = 20
) -> RateAlarm:
    """The e-process over `outcomes` in order, at its first alarm, else at its end."""
    if not outcomes:
        return rate_exceeds(0, 0, line=line, alpha=alpha, concentration=concentration)
    hits = np.cumsum(outcomes)
    nums = np.arange(1, len(outcomes) + 1)
    log_es = _log_e(hits, nums, line=line, concentration=concentration)
    alarms = (log_es > -math.log(alpha)) & (hits > line * nums)
    at = int(np.argmax(alarms)) if alarms.any() else len(outcomes) - 1
    return _state(int(hits[at]), int(nums[at]), float(log_es[at]), line=line, alpha=alpha)


def _log_e(hits: Counts, nums: Counts, *, line: float, concentration: float) -> Values:
    if not 0 < line < 1:
        raise ValueError(f"line {line} must lie between 0 and 1")
    a, b = concentration * line, concentration * (1 - line)
    mixture = betaln(a + hits, b + nums - hits) - betaln(a, b)
    log_e: Values = mixture - hits * math.log(line) - (nums - hits) * math.log1p(-line)
    return log_e


def _state(hits: int, num: int, log_e: float, *, line: float, alpha: float) -> RateAlarm:
    alarm = log_e > -math.log(alpha) and hits > line * num
    return RateAlarm(num, hits, line, log_e, alarm)


def wilson_upper(hits: int, num: int, *, z: float = 1.96) -> float:
    """The upper end of Wilson's score interval for a rate (Wilson 1927); 1 without trials."""
    if num == 0:
        return 1.0
    rate = hits / num
    centre = rate + z * z / (2 * num)
    spread = z * math.sqrt(rate * (1 - rate) / num + z * z / (4 * num * num))
    return min(1.0, (centre + spread) / (1 + z * z / num))
