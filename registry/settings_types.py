"""What all parts of the settings are made of."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Part(BaseModel):
    """Base of all parts: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
