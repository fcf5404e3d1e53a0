"""Ids that others have given, in a path: anything, slashes and newlines included.

Starlette's own "path" ends before a newline, and would take one person for another.
"""

from starlette.convertors import Convertor, register_url_convertor


class _Anything(Convertor[str]):
    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())
USER = "{user_id:anything}"
INTERACTION = "{interaction_id:anything}"
