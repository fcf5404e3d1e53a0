"""What tests that start a real Ray have in common."""

from __future__ import annotations

import pytest

RAY_WARNINGS = [
    # Ray's own deprecations, and the sockets and logs that it leaves to the interpreter's exit.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
"""Marks that keep Ray's warnings from failing a test."""
