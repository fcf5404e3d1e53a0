"""Bodies of answers as JSON."""

from typing import Any

from pydantic_core import to_json
from starlette.responses import Response


class Json(Response):
    """A JSON answer. Starlette's own takes twenty times as long to write one."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body's bytes; models are written as they are."""
        return to_json(content, inf_nan_mode="null")
