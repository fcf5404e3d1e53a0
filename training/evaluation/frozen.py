"""Frozen suites: questions that are never trained on, named by their content.

A suite is a JSONL file of training-file form (`training.encoding`) whose digest stands in
its name: `support-v2.3f9a1c0d2b4e.jsonl`. Whoever reads one is told when it is not what
its name says, and training leaves out what is near to any of its questions.

    python -m training.evaluation.frozen questions.jsonl --name support-v2 --folder suites
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from registry import prompts
from training.encoding import Example, read_examples
from training.errors import DataError
from training.evaluation.metrics import words

NEAR = 0.6
"""Jaccard similarity of word pairs from which two conversations count as the same."""
_DIGEST_CHARACTERS = 12
_NAME = re.compile(rf"(.+)\.([0-9a-f]{{{_DIGEST_CHARACTERS}}})\.jsonl")


def freeze(examples: Sequence[Example], *, name: str, folder: Path) -> Path:
    """Writes `examples` as suite `name` into `folder`; the same examples give the same file."""
    lines = [
        json.dumps(_record(example), sort_keys=True, ensure_ascii=False) + "\n"
        for example in sorted(examples, key=lambda example: example.id)
    ]
    content = "".join(lines).encode()
    path = folder / f"{name}.{_digest(content)}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
    return path


def read_suite(path: Path) -> list[Example]:
    """The suite's examples; DataError where the file is not what its name says."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path} is no frozen suite: its name must end in a digest and .jsonl.")
    examples = read_examples(path)
    found = _digest(path.read_bytes())
    if found != match.group(2):
        raise DataError(f"The suite {path} was changed: its content has the digest {found}.")
    return examples


def join_suites(paths: Sequence[Path], target: Path) -> Path:
    """Writes the questions of all suites into one training file, and returns its path.

    Ids become `suite/id`. DataError where a suite is not what its name says.
    """
    lines = []
    for path in paths:
        for example in read_suite(path):
            record = _record(example) | {"id": f"{path.stem}/{example.id}"}
            lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    target.write_text("".join(lines), encoding="utf-8")
    return target


def apart_from(
    examples: Sequence[Example], suite: Iterable[Example], *, near: float = NEAR
) -> tuple[list[Example], list[str]]:
    """`examples` without those near to one of `suite`, and the ids of those left out.

    Near is exact, not estimated: the Jaccard similarity of the sets of word pairs of what
    the user said last, without what the format puts around it. Texts of one word are near where
    they are equal.
    """
    by_pair: dict[tuple[str, ...], list[int]] = defaultdict(list)
    sizes = []
    for number, question in enumerate(suite):
        pairs = _pairs(question)
        sizes.append(len(pairs))
        for pair in pairs:
            by_pair[pair].append(number)
    kept, left_out = [], []
    for example in examples:
        pairs = _pairs(example)
        common = Counter(number for pair in pairs for number in by_pair.get(pair, ()))
        closest = max(
            (count / (len(pairs) + sizes[number] - count) for number, count in common.items()),
            default=0.0,
        )
        if closest >= near:
            left_out.append(example.id)
        else:
            kept.append(example)
    return kept, left_out


def without_suites(
    examples: list[Example], suites: Sequence[Path]
) -> tuple[list[Example], list[str]]:
    """`apart_from` the questions of all suites; DataError where nothing would be left to learn."""
    questions = [question for path in suites for question in read_suite(path)]
    if not questions:
        return examples, []
    kept, held_back = apart_from(examples, questions)
    if not kept:
        raise DataError(
            f"All {len(examples)} training examples are near to questions of the suites "
            f"{', '.join(path.name for path in suites)}, which are never learned."
        )
    return kept, held_back


def _pairs(example: Example) -> set[tuple[str, ...]]:
    turns = [str(turn["content"]) for turn in example.messages if turn["role"] == "user"]
    said = words(prompts.request_of(turns[-1])) if turns else []
    return set(pairwise(said)) or {tuple(said)}


def _record(example: Example) -> dict[str, object]:
    return {
        "id": example.id,
        "messages": [dict(message) for message in example.messages],
        "target_tool": example.target_tool,
        "language": example.language,
    }


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST_CHARACTERS]


def _main() -> None:
    parser = argparse.ArgumentParser(description="Freeze questions and their answers as a suite.")
    parser.add_argument("questions", type=Path, help="training-file form, JSONL")
    parser.add_argument("--name", required=True, help="such as support-v1")
    parser.add_argument("--folder", type=Path, default=Path("suites"))
    arguments = parser.parse_args()
    try:
        path = freeze(
            read_examples(arguments.questions), name=arguments.name, folder=arguments.folder
        )
    except DataError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    _main()
