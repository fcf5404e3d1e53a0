"""What lies in files of the home folder goes with its user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from registry import interactions
from registry.db import Database
from registry.deployment import Act
from registry.interactions import Interaction
from registry.leftovers import sweep_rehearsal
from tests.registry.conftest import NOW


def test_a_question_that_was_answered_with_nothing_leaves_the_rehearsal_file_too(
    database: Database, act: Callable[[str], Act], tmp_path: Path
) -> None:
    keyring = act("a test").keyring
    item = Interaction(
        id="i",
        created_at=NOW,
        input_text="a secret",
        structured_prompt="",
        model_output="",
        external_user_id="ann",
    )
    path = tmp_path / "rehearsal.jsonl"

    def record(question: str) -> str:
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": " "}]
        return json.dumps({"messages": turns}) + "\n"

    path.write_text(record("a secret") + record("hello"))
    with database.write() as session:
        interactions.log(session, [item], keyring=keyring)
        assert sweep_rehearsal(session, path, keyring.pseudonym("ann"), keyring) == 1
    assert path.read_text() == record("hello")
