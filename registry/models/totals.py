"""What is counted as it happens, so that nobody has to read it all again."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field, SQLModel

from registry.models.columns import json_column, moment, reference


class UsageHour(SQLModel, table=True):
    """Counts of the interactions that one hour brought, kept by triggers of the database.

    Whoever adds, rates, changes or removes interactions changes these too, in the same
    transaction. `writer` keeps those apart who write at once: on PostgreSQL each connection
    counts in rows of its own, so that none waits for another; their sum is what holds.
    No foreign key: a workload that is renamed renames its interactions, and they these.
    """

    __tablename__ = "usage_hours"

    workload: str = Field(primary_key=True)
    hour: datetime = moment(primary_key=True)
    role: str = Field(primary_key=True)
    writer: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    total: int = Field()
    rated: int = Field()
    positive: int = Field()
    negative: int = Field()
    errors: int = Field()
    scored: int = Field()
    """Interactions with a quality score."""
    quality_nano: int = Field(sa_type=BigInteger)
    """Sum of their scores in units of 1e-9: whole numbers add up exactly, in any order."""


class UsageDay(SQLModel, table=True):
    """What one day (UTC) that is over looked like: no person's, and kept when its rows go.

    `total` is how many interactions it was made from. No foreign key, as with `UsageHour`.
    """

    __tablename__ = "usage_days"

    workload: str = Field(primary_key=True)
    day: date = Field(primary_key=True)
    total: int = Field()
    quality: Any = json_column()
    """By scorer ("" where none is named): number and sum of scores."""
    prompts: Any = json_column()
    """Number of prompts by class: target tool, language and length."""


class TrialRows(SQLModel, table=True):
    """What a look at a running experiment has read, for the next (`registry/trial_rows.py`).

    Nothing is here that the interactions do not tell: without it all is read again. Frames in
    Arrow's IPC form. `priors` is what people's answers in the `prior_days` before came to.
    """

    __tablename__ = "trial_rows"

    experiment_id: str = reference("experiments.id", ondelete="CASCADE", primary_key=True)
    answers: bytes = Field(sa_type=LargeBinary)
    prior_days: int = Field()
    priors: bytes = Field(sa_type=LargeBinary)
