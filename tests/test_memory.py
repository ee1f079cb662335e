"""Peak memory of a block: what it takes counts, what was freed before does not."""

from __future__ import annotations

import numpy as np
import pytest

from rnclib import memory

MB = 1_000_000


def taken(n_bytes: int) -> None:
    np.ones(n_bytes // 8).sum()


def test_a_block_is_charged_with_what_it_takes_and_not_with_what_others_took_before():
    taken(400 * MB)
    with memory.peak() as small:
        taken(20 * MB)
    with memory.peak() as large:
        taken(200 * MB)
    if small.bytes is None:
        pytest.skip("this system does not reset the peak")
    assert 15 * MB < small.bytes < 60 * MB and 190 * MB < large.bytes < 240 * MB


def test_where_the_peak_cannot_be_reset_nothing_is_said(monkeypatch):
    monkeypatch.setattr(memory, "_from_here_on", lambda: None)
    with memory.peak() as found:
        taken(MB)
    assert found.bytes is None


def test_memory_now_is_at_most_its_peak():
    now, most = memory.resident()
    assert 10 * MB < now <= most
