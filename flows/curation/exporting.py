"""Writes samples as JSONL and Parquet in ChatML, Alpaca and completion form, block by block.

The ChatML of the top folder is what training reads; a `README.md` tells `datasets.load_dataset`
where each form is. What people rejected (`rejected`, and the whole record where `label` is false)
stands in the folder `preference` alone, for the objectives that learn from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from registry.settings_curation import DatasetForm

Record = Mapping[str, Any]
"""A ChatML record: `id`, `messages` that end with the assistant's, and what is known of it."""
Sink = Callable[[list[Record]], None]
"""Takes the records of a block."""

_ABOUT = [
    ("target_tool", pa.string()),
    ("language", pa.string()),
    ("weight", pa.float64()),
    ("source", pa.string()),
]
_TURN = pa.struct(
    [(name, pa.string()) for name in ("role", "content", "name", "tool_calls", "tool_call_id")]
)
PREFERENCE = "preference"
_OPINION = ("rejected", "label")
SCHEMAS: dict[str, pa.Schema] = {
    "chatml": pa.schema([("id", pa.string()), ("messages", pa.list_(_TURN)), *_ABOUT]),
    "alpaca": pa.schema(
        [(name, pa.string()) for name in ("id", "instruction", "input", "output")] + _ABOUT
    ),
    "completion": pa.schema(
        [(name, pa.string()) for name in ("id", "prompt", "completion")] + _ABOUT
    ),
}
SCHEMAS[PREFERENCE] = (
    SCHEMAS["chatml"]
    .append(pa.field("rejected", pa.string()))
    .append(pa.field("label", pa.bool_()))
)


def write_split(
    folder: Path,
    split: str,
    blocks: Iterable[list[Record]],
    forms: Iterable[DatasetForm],
) -> None:
    """Write one split of a dataset into `folder`, in every form; ChatML in JSONL always.

    Of the training split also what people rejected, beside the rest, for preference objectives.
    """
    with ExitStack() as files:
        sinks = [_lines(files, folder / f"{split}.jsonl", lambda record: record)]
        for form in forms:
            place = folder if form == "chatml" else folder / form
            place.mkdir(exist_ok=True)
            if form != "chatml":
                sinks.append(_lines(files, place / f"{split}.jsonl", SHAPES[form]))
            sinks.append(_parquet(files, place / f"{split}.parquet", form))
        preferences: list[Sink] = []
        if split == "train":
            place = folder / PREFERENCE
            place.mkdir(exist_ok=True)
            preferences.append(_lines(files, place / f"{split}.jsonl", lambda record: record))
            preferences.append(_parquet(files, place / f"{split}.parquet", PREFERENCE))
        for block in blocks:
            plain = _without_opinions(block)
            for sink in sinks:
                sink(plain)
            for sink in preferences:
                sink(block)


def _without_opinions(block: list[Record]) -> list[Record]:
    """What is to be learned as it stands."""
    return [
        {name: value for name, value in record.items() if name not in _OPINION}
        for record in block
        if record.get("label") is not False
    ]


def card(forms: Iterable[DatasetForm], splits: Iterable[str]) -> str:
    """The dataset card by which `datasets.load_dataset(folder, form)` finds the files."""
    lines = ["---", "configs:"]
    for number, form in enumerate(forms):
        lines += [f"- config_name: {form}", *(["  default: true"] if not number else [])]
        lines.append("  data_files:")
        for split in splits:
            path = f"{split}.parquet" if form == "chatml" else f"{form}/{split}.parquet"
            lines += [f"  - split: {split}", f"    path: {path}"]
    lines += [f"- config_name: {PREFERENCE}", "  data_files:", "  - split: train"]
    lines.append(f"    path: {PREFERENCE}/train.parquet")
    return "\n".join([*lines, "---", "", "Curated by Kalimtak; see manifest.json.", ""])


def as_alpaca(record: Record) -> dict[str, Any]:
    """The last request as instruction, what was said before it as input."""
    *before, request = record["messages"][:-1]
    return _about(
        record,
        instruction=_text(request),
        input=_transcript(before),
        output=_text(record["messages"][-1]),
    )


def as_completion(record: Record) -> dict[str, Any]:
    """What was said as one text, and what followed."""
    turns = record["messages"][:-1]
    prompt = _text(turns[0]) if len(turns) == 1 else f"{_transcript(turns)}\nassistant:"
    return _about(record, prompt=prompt, completion=_text(record["messages"][-1]))


def _as_table_row(record: Record) -> dict[str, Any]:
    turns = [
        {
            "role": turn["role"],
            "content": _text(turn),
            "name": _string(turn.get("name")),
            "tool_calls": _json(turn.get("tool_calls")),
            "tool_call_id": _string(turn.get("tool_call_id")),
        }
        for turn in record["messages"]
    ]
    return _about(record, messages=turns)


def _as_preference(record: Record) -> dict[str, Any]:
    return {**_as_table_row(record), **{name: record.get(name) for name in _OPINION}}


SHAPES: dict[str, Callable[[Record], Record]] = {
    "chatml": _as_table_row,
    PREFERENCE: _as_preference,
    "alpaca": as_alpaca,
    "completion": as_completion,
}


def _about(record: Record, **content: Any) -> dict[str, Any]:
    about = {name: record.get(name) for name, _ in _ABOUT}
    return {"id": record["id"], **content, **about}


def _text(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, str):
        return content
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def _transcript(turns: Iterable[Mapping[str, Any]]) -> str:
    return "\n".join(f"{turn['role']}: {_text(turn)}" for turn in turns)


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _string(value: Any) -> str | None:
    """A column of strings takes nothing else, whatever was logged."""
    return value if isinstance(value, str) else _json(value)


def _lines(files: ExitStack, path: Path, shape: Callable[[Record], Record]) -> Sink:
    file = files.enter_context(path.open("w", encoding="utf-8"))

    def write(block: list[Record]) -> None:
        file.writelines(json.dumps(shape(item), ensure_ascii=False) + "\n" for item in block)

    return write


def _parquet(files: ExitStack, path: Path, form: str) -> Sink:
    schema = SCHEMAS[form]
    writer = files.enter_context(pq.ParquetWriter(path, schema, compression="zstd"))

    def write(block: list[Record]) -> None:
        rows = [SHAPES[form](item) for item in block]
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))

    return write
