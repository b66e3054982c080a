from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from wdsfilter.engine.alike import in_groups

WORDS = ["a", "bb", "c", "dd", "e", "ff", "g", "h", "i", "jjjj", "kk"]


def test_one_length_a_call_four_or_more_and_results_in_order() -> None:
    """Each call gets words of one length, filled up to four, no more than were asked for, evenly."""
    calls: list[Sequence[str]] = []

    def work(words: Sequence[str]) -> list[str]:
        calls.append(words)
        return [word.upper() for word in words]

    with ThreadPoolExecutor(1) as threads:
        assert in_groups(WORDS, len, 5, work, threads) == [word.upper() for word in WORDS]
        assert calls == [
            ["a", "c", "e", "a"],
            ["g", "h", "i", "g"],
            ["bb", "dd", "ff", "kk"],
            ["jjjj"] * 4,
        ]
        assert in_groups([], len, 5, work, threads) == []
