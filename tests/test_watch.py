"""Looking on: a run's processes, speed and troubles, from its files alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.runs import make_shards, write_recipe
from wdsfilter.cli import main
from wdsfilter.errors import OutputError
from wdsfilter.events import EventTail, read_events
from wdsfilter.output import OutputFolder
from wdsfilter.report import speed
from wdsfilter.stopwatch import Stopwatch
from wdsfilter.storage import StoredPath
from wdsfilter.watch import Watch


def append(folder: StoredPath, process: str, *events: dict[str, Any]) -> None:
    assert isinstance(folder, Path)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{process}.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def seen(watch: Watch, now: float, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, soft_wrap=True)  # as the command line's
    console.print(watch.view(now), soft_wrap=True)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_processes_speed_and_troubles_as_they_come(tmp_path: Path) -> None:
    """Each process's rank, shards, samples and speed by its own clock; troubles as soon as they are noted."""
    events = OutputFolder(tmp_path).events
    append(events, "one", {"event": "started", "time": 1000, "shards": 9, "place": {"rank": 0}})
    append(events, "two", {"event": "started", "time": 5, "shards": 9, "place": {"rank": 1}})
    watch = Watch(OutputFolder(tmp_path))
    watch.look(0.0)
    append(
        events, "one", {"event": "loaded", "time": 1010}, {"event": "progress", "time": 1020, "judging": 50}
    )
    append(events, "one", {"event": "committed", "time": 1030, "samples": 300, "shard": "a"})
    append(events, "two", {"event": "loaded", "time": 6}, {"event": "progress", "time": 26, "judging": 40})
    append(events, "two", {"event": "read_failed", "time": 27, "shard": "[b].tar", "error": "gone"})
    watch.look(10.0)
    text = seen(watch, 12.0)
    assert "0/9 shards, 40 pairs, 17 pairs/s" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["one", "0", "1", "300", "15.0", "at", "work"] in rows
    assert ["two", "1", "0", "40", "2.0", "at", "work"] in rows
    assert "read failed shard: [b].tar, error: gone" in text
    assert not watch.done(12.0)


def test_a_narrow_window_keeps_the_numbers(tmp_path: Path) -> None:
    """In 48 columns each process still has its number on the host, its counts and its state; no line is longer."""
    events = OutputFolder(tmp_path).events
    for name in ("vm-561ba46a.31516", "vm-561ba46a.31538"):
        started = {"event": "started", "time": 0, "shards": 9, "place": {"rank": 0}}
        append(events, name, started, {"event": "loaded", "time": 1})
        append(events, name, {"event": "committed", "time": 11, "samples": 12345, "shard": "a"})
    watch = Watch(OutputFolder(tmp_path))
    watch.look(0.0)
    rows = [line.split() for line in seen(watch, 1.0, width=48).splitlines()]
    append(events, "vm-561ba46a.31516", {"event": "read_failed", "time": 12, "error": "gone " * 20})
    watch.look(1.0)
    assert max(map(len, seen(watch, 1.0, width=48).splitlines())) <= 48
    for number in ("31516", "31538"):
        assert [number, "1", "12,345", "1,234.5", "at", "work"] in rows


def test_a_process_that_was_killed_falls_silent(tmp_path: Path) -> None:
    """Who says nothing for a minute is said to be silent; the onlooker leaves when nobody is left."""
    append(
        OutputFolder(tmp_path).events,
        "one",
        {"event": "started", "time": 3, "shards": 2},
        {"event": "loaded"},
    )
    watch = Watch(OutputFolder(tmp_path))
    watch.look(0.0)
    assert "silent" not in seen(watch, 59.0)
    assert "silent for 61 s" in seen(watch, 61.0)
    assert not watch.done(61.0)
    assert watch.done(601.0)


def test_looking_on_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status --watch` of a finished run shows it once, and exits with the run's code."""
    shards, out = make_shards(tmp_path / "in", 3), tmp_path / "out"
    assert main(["run", str(write_recipe(tmp_path)), "--shards", shards, "-o", str(out)]) == 0
    capsys.readouterr()
    assert main(["status", str(out), "--watch"]) == 0
    text = capsys.readouterr().out
    assert "3/3 shards, 36 pairs" in text
    assert "finished" in text
    with pytest.raises(OutputError):
        Watch(OutputFolder(tmp_path / "nothing"))


def test_the_tail_reads_whole_lines_once(tmp_path: Path) -> None:
    """An event is handed out once, and not before its line is whole."""
    tail = EventTail(tmp_path)
    (tmp_path / "p.jsonl").write_text('{"event": "a"}\n{"event": "b"')
    assert [event["event"] for event in tail.news()] == ["a"]
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write(', "time": 1}\nrubbish\n')
    assert [event["event"] for event in tail.news()] == ["b"]
    assert tail.news() == []
    assert [event["event"] for event in read_events(tmp_path)] == ["a", "b"]


def test_time_is_counted_where_it_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier stage takes is not counted for the one that waits for it."""
    clock = [0.0]
    monkeypatch.setattr("wdsfilter.stopwatch.time.perf_counter", lambda: clock[0])
    watch = Stopwatch()

    def numbers() -> Any:
        for number in range(3):
            clock[0] += 1.0
            yield number

    def doubled(items: Any) -> Any:
        for number in items:
            clock[0] += 10.0
            yield 2 * number

    line = watch.timed("doubling", doubled(watch.timed("counting", numbers())))
    assert list(line) == [0, 2, 4]
    assert watch.spent() == {"counting": 3.0, "doubling": 30.0}


def test_a_run_notes_where_its_time_went(tmp_path: Path) -> None:
    """Every run leaves seconds by stage, and its report shows them."""
    shards, out = make_shards(tmp_path / "in", 2), tmp_path / "out"
    assert main(["run", str(write_recipe(tmp_path)), "--shards", shards, "-o", str(out)]) == 0
    spent = [e["spent"] for e in read_events(OutputFolder(out).events) if e["event"] == "progress"][-1]
    stages = {
        "reading",
        "rules, preparing",
        "rules, judging",
        "scripted, preparing",
        "scripted, judging",
        "writing",
    }
    assert set(spent) == stages
    assert main(["report", str(out)]) == 0
    text = (out / "wdsfilter/report.html").read_text("utf-8")
    assert "Where the time went" in text
    assert all(f'<th scope="row">{stage}</th>' in text for stage in stages)


def test_throughput_over_time_is_all_samples() -> None:
    """The rates of all spans, times their length, are the samples that were judged."""
    events = [
        {"process": "a", "event": "started", "time": 0.0, "place": {"rank": 1}},
        {"process": "a", "event": "progress", "time": 10.0, "judging": 100, "spent": {"reading": 4.0}},
        {"process": "b", "event": "started", "time": 10.0},
        {"process": "a", "event": "committed", "time": 20.0, "samples": 150},
        {"process": "b", "event": "committed", "time": 30.0, "samples": 600},
        {
            "process": "b",
            "event": "progress",
            "time": 40.0,
            "judging": 0,
            "spent": {"reading": 1.0, "x": 9.0},
        },
    ]
    found = speed.measure(events)
    assert sum(found.rates) * 40.0 / len(found.rates) == pytest.approx(750)
    assert found.rates[0] == pytest.approx(10)
    assert found.spent == [("x", 9.0), ("reading", 5.0)]
