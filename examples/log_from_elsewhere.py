"""Log what another model answers, and what people say of it: python examples/log_from_elsewhere.py

The endpoint is http://127.0.0.1:8000, or what KALIMTAK_URL names; KALIMTAK_KEY is its key.
"""

import os
import sys
import time

from serving.client import Client, Drop


def my_model(question: str) -> str:
    """Stands for whatever answers in your product."""
    return f"You asked: {question}"


def main() -> None:
    """Answer two questions, log both, and rate one."""

    def tell(drop: Drop) -> None:
        sys.stderr.write(f"lost: {drop.kind} of {drop.interaction_id}: {drop.reason}\n")

    url = os.environ.get("KALIMTAK_URL", "http://127.0.0.1:8000")
    with Client(url, api_key=os.environ.get("KALIMTAK_KEY"), on_drop=tell) as kalimtak:
        for question in ("What is a SNES?", "Who made it?"):
            started = time.monotonic()
            answer = my_model(question)
            interaction_id = kalimtak.log(
                messages=[{"role": "user", "content": question}],
                model_output=answer,
                model_version="my-model-2",
                user_id="user-123",
                processing_time_ms=(time.monotonic() - started) * 1000,
            )
        kalimtak.feedback(interaction_id, score=5, feedback_text="Just right")
        kalimtak.flush()
        for entry in kalimtak.history("user-123", limit=2).interactions:
            sys.stdout.write(f"{entry['text']}  →  {entry['model_output']}")
            sys.stdout.write(f"  (rated {entry['feedback_score']})\n")
        sys.stdout.write(f"{kalimtak.num_dropped} lost\n")


if __name__ == "__main__":
    main()
