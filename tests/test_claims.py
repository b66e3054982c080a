"""Claims save work; correctness never rests on them (promise 5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from wdsfilter import claims, launch, storage
from wdsfilter.claims import Claims
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import parse
from wdsfilter.shards.source import Shard
from wdsfilter.worklist import Worklist


def two(tmp_path: Path, stale_after: float = 0.6) -> tuple[Claims, Claims]:
    """Two owners' claims on one folder."""
    return tuple(Claims(OutputFolder(tmp_path), stale_after=stale_after) for _ in range(2))  # type: ignore[return-value]


def test_a_shard_has_one_owner(tmp_path: Path) -> None:
    """What one holds another cannot take, until it is released."""
    first, second = two(tmp_path)
    with first, second:
        assert first.take("a/s.tar")
        assert not second.take("a/s.tar")
        first.release("a/s.tar")
        assert second.take("a/s.tar")


def test_one_of_many_takes(tmp_path: Path) -> None:
    """Of eight that reach for a shard at once exactly one gets it."""
    owners = [Claims(OutputFolder(tmp_path)) for _ in range(8)]
    gate = threading.Barrier(8)
    got: list[bool] = []

    def reach(owner: Claims) -> None:
        gate.wait()
        got.append(owner.take("s.tar"))

    threads = [threading.Thread(target=reach, args=(owner,)) for owner in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


def test_a_beating_claim_is_never_stale(tmp_path: Path) -> None:
    """As long as its owner beats, a claim holds, however long the work takes."""
    first, second = two(tmp_path)
    with first, second:
        assert first.take("s.tar")
        deadline = time.monotonic() + 3 * first.stale_after
        while time.monotonic() < deadline:
            assert not second.take("s.tar")
            time.sleep(0.05)


def test_a_claim_without_a_beat_is_taken_over(tmp_path: Path) -> None:
    """A claim whose counter stands still for `stale_after` seconds of the observer's clock is free."""
    owner, observer = two(tmp_path)
    assert owner.take("s.tar")  # never entered: it does not beat
    with observer:
        assert not observer.take("s.tar")
        assert not observer.is_free("s.tar")
        time.sleep(1.1 * observer.stale_after)
        assert observer.is_free("s.tar")
        assert observer.take("s.tar")
        owner.release("s.tar")
        assert json.loads((tmp_path / "wdsfilter/claims/s.tar.json").read_text()), "who lost removes nothing"


def test_a_dead_process_of_this_host_loses_at_once(tmp_path: Path) -> None:
    """The claim of a process that is gone from this host is taken without waiting."""
    script = (
        "import sys; from pathlib import Path\n"
        "from wdsfilter.claims import Claims; from wdsfilter.output import OutputFolder\n"
        "assert Claims(OutputFolder(Path(sys.argv[1]))).take('s.tar')\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    with Claims(OutputFolder(tmp_path), stale_after=3600) as observer:
        assert observer.take("s.tar")


def test_another_hosts_process_numbers_mean_nothing_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of another host is not judged by this host's process table."""
    owner, observer = two(tmp_path, stale_after=3600)
    monkeypatch.setattr(claims, "host_identity", lambda: "elsewhere")
    monkeypatch.setattr(os, "getpid", lambda: 2**22 - 1)
    assert owner.take("s.tar")
    monkeypatch.undo()
    assert not observer.take("s.tar")


def test_a_garbled_claim_grows_stale(tmp_path: Path) -> None:
    """A claim file that cannot be read blocks its shard for `stale_after` seconds and no longer."""
    path = tmp_path / "wdsfilter/claims/s.tar.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0")
    observer = Claims(OutputFolder(tmp_path), stale_after=0.3)
    assert not observer.take("s.tar")
    time.sleep(0.4)
    assert observer.take("s.tar")


def test_a_clock_that_jumps_makes_nothing_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Staleness is told by the observer's monotonic clock: setting the time of day changes nothing."""
    owner, observer = two(tmp_path, stale_after=60)
    assert owner.take("s.tar")
    assert not observer.take("s.tar")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert not observer.take("s.tar")


def test_who_comes_late_to_a_stale_claim_leaves_the_fresh_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An observer that judged a claim stale, and finds another's fresh one when it acts, puts that back."""
    dead, late = two(tmp_path, stale_after=0.2)
    fresh = Claims(OutputFolder(tmp_path), stale_after=60)
    assert dead.take("s.tar")
    assert not late.take("s.tar")
    assert not fresh.take("s.tar")
    time.sleep(0.3)
    real = Claims._is_stale

    def overtaken(self: Claims, name: str) -> bool:
        stale = real(self, name)
        monkeypatch.setattr(Claims, "_is_stale", real)
        (tmp_path / "wdsfilter/claims/s.tar.json").unlink()
        assert fresh.take("s.tar")
        return stale

    monkeypatch.setattr(Claims, "_is_stale", overtaken)
    assert not late.take("s.tar")
    assert json.loads((tmp_path / "wdsfilter/claims/s.tar.json").read_text())["token"] == fresh._token


def test_a_claim_is_written_once(tmp_path: Path) -> None:
    """A sign of life is a file of its owner's own: who lost a claim and does not know it writes over nothing."""
    sleeper, owner = two(tmp_path, stale_after=0.2)
    claim = tmp_path / "wdsfilter/claims/s.tar.json"
    assert sleeper.take("s.tar")
    written = claim.read_bytes()
    before = owner.beat("s.tar")
    sleeper.beat_once()
    assert owner.beat("s.tar") != before
    assert claim.read_bytes() == written
    assert not owner.take("s.tar")
    time.sleep(0.3)
    assert owner.take("s.tar")
    owner.beat_once()
    written, before = claim.read_bytes(), owner.beat("s.tar")
    sleeper.beat_once()
    assert (claim.read_bytes(), owner.beat("s.tar")) == (written, before)
    sleeper.release("s.tar")
    owner.release("s.tar")
    assert list(claim.parent.iterdir()) == []


def test_a_claims_token_leads_nowhere(tmp_path: Path) -> None:
    """What stands in a strange claim is no part of a path."""
    path = tmp_path / "wdsfilter/claims/s.tar.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"token": "/../../../precious"}))
    (tmp_path / "precious.beat").write_text("7")
    observer = Claims(OutputFolder(tmp_path), stale_after=0.1)
    assert observer.beat("s.tar") == (None, 0)
    assert not observer.take("s.tar")
    time.sleep(0.2)
    assert observer.take("s.tar")
    assert (tmp_path / "precious.beat").exists()


def test_claims_are_released(tmp_path: Path) -> None:
    """When its owner closes, nothing of its claims is left."""
    with Claims(OutputFolder(tmp_path)) as owner:
        assert owner.take("a.tar")
        assert owner.take("b.tar")
    assert not list((tmp_path / "wdsfilter/claims").iterdir())


def test_temporaries_of_another_container_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what a dead process of this very process table left behind is removed."""
    folder = OutputFolder(tmp_path)
    folder.temporary().write_bytes(b"ours, alive")
    ours = launch.process_name().rpartition(".")[0]
    (tmp_path / f"wdsfilter/tmp/{ours}.4194303.x.0").write_bytes(b"ours, dead")
    (tmp_path / f"wdsfilter/tmp/{ours}0.4194303.x.0").write_bytes(b"another container's")
    folder.remove_dead_temporaries()
    left = {path.read_bytes() for path in (tmp_path / "wdsfilter/tmp").iterdir()}
    assert left == {b"ours, alive", b"another container's"}


def test_a_folder_that_goes_as_a_claim_is_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims moved away between a claim's link and its flush cost nothing: another one is put."""
    first, _ = two(tmp_path)
    real = storage.sync_folder

    def moved(folder: Path) -> None:
        monkeypatch.setattr(storage, "sync_folder", real)
        folder.replace(tmp_path / "gone")
        real(folder)

    with first:
        monkeypatch.setattr(storage, "sync_folder", moved)
        assert first.take("s.tar")
        assert not first.is_free("s.tar")


@pytest.mark.parametrize("sign", [("other", 0), ("owner", 1)], ids=["taken-over", "beats"])
def test_a_claim_that_is_gone_is_no_sign_of_life(tmp_path: Path, sign: tuple[str, int]) -> None:
    """Who waits for others ends when they move; a claim that vanished while it looked is looked at again."""
    looks: list[object] = []

    class Seen(Claims):
        """Somebody's claim that is gone at the second look."""

        def is_free(self, name: str) -> bool:
            return looks.count((None, 0)) == 1 and gone

        def beat(self, name: str) -> tuple[str | None, int]:
            looks.append(("owner", 0) if not looks else (None, 0) if gone else sign)
            return looks[-1]  # type: ignore[return-value]

    shard = Shard("s.tar", "s.tar")
    recipe = parse({"judges": ["scripted"]})
    for gone in (True, False):
        looks.clear()
        claims = Seen(OutputFolder(tmp_path), stale_after=5.0)
        waiting = Worklist([shard], OutputFolder(tmp_path), recipe, claims, time.sleep, lambda *_, **__: None)
        assert waiting.another_round() == gone
