"""The cache: rows keep what is theirs, live ones stand without gaps, budgets are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.cache import SMALLEST_CAPACITY, CacheRow, KvCache, LayerShape
from serving.engine.cache_budget import free_memory, token_budget

CPU = torch.device("cpu")
MARGIN = 4 * SMALLEST_CAPACITY


def make_cache(budget: int, *, max_rows: int = 4) -> KvCache:
    return KvCache(
        [LayerShape(2, 4, 3), LayerShape(1, 2, 2)],
        budget=budget,
        context=2 * MARGIN,
        max_rows=max_rows,
        device=CPU,
        dtype=torch.float32,
    )


def fill(row: CacheRow, mark: float, length: int) -> None:
    for tensor in (*row.slab.keys, *row.slab.values):
        tensor[row.slot, :, :length] = mark
    row.length = length


def holds(row: CacheRow, mark: float) -> bool:
    tensors = (*row.slab.keys, *row.slab.values)
    return all(
        bool((tensor[row.slot, :, : row.length] == mark).all())
        and not bool(tensor[row.slot, :, row.length :].any())
        for tensor in tensors
    )


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, MARGIN)), max_size=40), st.integers(0, 9))
def test_rows_keep_what_is_theirs_whoever_comes_and_goes(
    acts: list[tuple[bool, int]], pick: int
) -> None:
    cache = make_cache(3 * MARGIN)
    live: dict[float, CacheRow] = {}
    for mark, (leaves, tokens) in enumerate(acts, start=1):
        if leaves and live:
            key = sorted(live)[pick % len(live)]
            # What a row leaves behind, numbers or not, is nobody's.
            fill(live[key], float("nan"), live[key].length)
            cache.release(live.pop(key))
        elif (row := cache.take(tokens)) is not None:
            fill(row, mark, min(tokens, 9))
            live[mark] = row
        assert cache.tokens <= 3 * MARGIN
        assert all(holds(row, mark) for mark, row in live.items())
        for slab in cache.slabs():
            assert [row.slot for row in slab.rows] == list(range(len(slab.rows)))


def test_room_that_no_row_uses_is_given_to_those_who_wait() -> None:
    cache = make_cache(MARGIN)
    short = [cache.take(10) for _ in range(4)]
    assert None not in short
    assert cache.take(10) is None
    assert cache.take(MARGIN) is None
    for row in short:
        assert row is not None
        cache.release(row)
    long = cache.take(MARGIN)
    assert long is not None
    assert long.slab.capacity == MARGIN


def test_the_longest_row_is_bounded_by_context_and_budget() -> None:
    assert make_cache(MARGIN).longest_row == MARGIN
    assert make_cache(9 * MARGIN).longest_row == 2 * MARGIN


def test_the_budget_is_a_share_of_what_is_free(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    assert free_memory(meminfo, tmp_path) == 4_096_000
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert free_memory(meminfo, tmp_path) == 4_096_000
    (tmp_path / "memory.max").write_text("2500\n")
    assert free_memory(meminfo, tmp_path) == 2000
    assert token_budget(1, CPU, most=10) == 10
    assert token_budget(1 << 60, CPU, most=10) == 1


def test_memory_is_taken_only_as_rows_come() -> None:
    cache = make_cache(100 * MARGIN, max_rows=50)
    assert cache.tokens == 0
    assert cache.take(5) is not None
    assert cache.tokens == pytest.approx(4 * SMALLEST_CAPACITY)
