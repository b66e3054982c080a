"""Trackers: told what the run is doing, by one process, and never in its way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import make_shards, write_recipe
from wdsfilter.cli import main

accelerate_tracking = pytest.importorskip("accelerate.tracking")


class Remembering(accelerate_tracking.GeneralTracker):  # type: ignore[name-defined, misc]
    """A tracker that writes what it is told, as tensorboard would; as accelerate wants them."""

    name = "remembering"
    requires_logging_directory = True
    main_process_only = True
    fails = False

    def __init__(self, run_name: str, logging_dir: Path) -> None:
        super().__init__()
        self.folder = Path(logging_dir) / run_name

    @accelerate_tracking.on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        accelerate_tracking.logger.debug("as accelerate's own trackers do")
        self.folder.mkdir(parents=True)

    @property
    def tracker(self) -> Any:
        return self

    @accelerate_tracking.on_main_process  # type: ignore[untyped-decorator]
    def log(self, values: dict[str, float], step: int | None = None, **kwargs: Any) -> None:
        if self.fails:
            raise RuntimeError("no network")
        with (self.folder / "told.jsonl").open("a") as file:
            file.write(json.dumps([step, values]) + "\n")

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setitem(accelerate_tracking.LOGGER_TYPE_TO_CLASS, "remembering", Remembering)
    monkeypatch.setattr(accelerate_tracking, "get_available_trackers", lambda: ["remembering"])
    shards = make_shards(tmp_path / "in", 3)
    return ["run", str(write_recipe(tmp_path)), "--shards", shards, "-o", str(tmp_path / "out"), "--set"]


def test_a_run_tells_its_trackers(
    tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last word holds what the summary says; no process group is made for it, even under a launcher."""

    def no_state(*_: Any, **__: Any) -> None:
        raise AssertionError("accelerate's state was asked, which makes a process group under a launcher")

    monkeypatch.setattr(accelerate_tracking, "PartialState", no_state)
    assert main([*arguments, "run.trackers=[remembering]"]) == 0
    lines = (tmp_path / "out/wdsfilter/trackers/wdsfilter/told.jsonl").read_text().splitlines()
    step, values = json.loads(lines[-1])
    counts = json.loads((tmp_path / "out/wdsfilter/summary.json").read_bytes())["counts"]
    assert step == values["run/samples"] == counts["samples"] == 36
    assert values["run/kept_share"] == counts["kept"] / 36
    assert values["run/shards"] == 3


def test_a_tracker_that_fails_is_left_alone(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run goes on without a tracker that fails, and says so."""
    monkeypatch.setattr(Remembering, "fails", True)
    assert main([*arguments, "run.trackers=[remembering]"]) == 0
    assert "tracker remembering failed" in capsys.readouterr().err


def test_a_tracker_that_is_not_installed(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused in one line, before anything is done."""
    assert main([*arguments, "run.trackers=[nosuch]"]) == 1
    assert "nosuch is not installed here" in capsys.readouterr().err
    assert not (tmp_path / "out/wdsfilter/ledger").exists()
