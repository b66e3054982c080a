"""What goes wrong between a run and each kind of store: no short shard, no bad commit, the next run goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.emulators import AZURITE_KEY
from tests.hub import TOKEN
from tests.places import PLACES, WRITING, Place
from tests.proxy import NO_ANSWER, Fault
from tests.runs import tree, write_recipe, write_shard
from tests.s3 import CREDENTIALS
from tests.test_object_output import stored_tree
from wdsfilter import remote, retry, storage, worklist
from wdsfilter.cli import main
from wdsfilter.shards.source import Shard, seeded_order

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=<...>'"),  # the hub library's own HTTP client
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),  # Azure's and Google's do
]

BY_DAY = ("s3", "http")
BOUNDARY = 1536  # of the first member: a header, and two blocks of data
SIZE = 20480
FAULTS = {
    "cut before its first byte": Fault(cut=0),
    "cut in a header": Fault(cut=100),
    "cut between members": Fault(cut=BOUNDARY),
    "cut before its last byte": Fault(cut=SIZE - 1),
    "closed without an answer": Fault(NO_ANSWER),
    "turned away": Fault(429),
    "an error": Fault(500),
    "unavailable, with a page": Fault(503, b"<html>" * 4000),
    "silent": Fault(stall=2.5),
    "without its last block, and the length says so": Fault(longer=-512),
    "shorter than it says": Fault(longer=512),
    "replaced meanwhile": Fault(cut=BOUNDARY),
}
LASTING = (
    "cut before its first byte",
    "closed without an answer",
    "turned away",
    "an error",
    "shorter than it says",
)
"""Faults that keep a shard away from everybody as long as they last."""
NAMES = [s.name for s in seeded_order([Shard(f"s-{n:02d}.tar", "") for n in range(len(FAULTS) + 1)], 0)]
CALM, *_ = NAMES
"""The shard that a run looks at first, which nothing happens to."""
SHARD_OF = dict(zip(FAULTS, NAMES[1:], strict=True))
PATTERN = f"s-{{00..{len(FAULTS):02d}}}.tar"
FEW = "s-{00..03}.tar"

SECRETS = ("hush", TOKEN, CREDENTIALS["AWS_SECRET_ACCESS_KEY"], AZURITE_KEY)


def shard_of(folder: Path, name: str, samples: int = 3) -> bytes:
    return write_shard(folder / name, [f"{name[2:4]}{number:05d}" for number in range(samples)]).read_bytes()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """A shard for each fault, by name, and the calm one."""
    folder = tmp_path_factory.mktemp("shards")
    found = {name: shard_of(folder, name) for name in NAMES}
    assert {len(data) for data in found.values()} == {SIZE}
    return found


@pytest.fixture(
    params=[pytest.param(name, marks=[] if name in BY_DAY else pytest.mark.nightly) for name in PLACES]
)
def place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shards: Mapping[str, bytes],
) -> Iterator[Place]:
    """A store that holds the shards, towards which nobody is patient."""
    for module, pause in ((retry, "FIRST_PAUSE"), (worklist, "_FIRST_PAUSE")):
        monkeypatch.setattr(module, pause, 0.0)
    monkeypatch.setattr(remote, "SILENCE", 2.0)
    with PLACES[request.param](tmp_path, monkeypatch, request) as found:
        for name, data in shards.items():
            found.put(name, data)
        yield found


def run_over(place: Place, folder: Path, output: str, *options: str, shards: str = PATTERN) -> int:
    recipe = str(write_recipe(folder))
    return main(["run", recipe, "--shards", place.shards + shards, "-o", output, *options])


def kept(output: str) -> dict[str, str]:
    """SHA-256 of each output shard in a folder or a store."""
    return {name: sha for name, sha in files(output).items() if name.endswith(".tar")}


def few_of(shards: Mapping[str, str]) -> dict[str, str]:
    return {name: sha for name, sha in shards.items() if name <= "s-03.tar"}


def files(output: str) -> dict[str, str]:
    return stored_tree(output) if "://" in output else tree(Path(output))


@pytest.fixture(scope="module")
def undisturbed(shards: Mapping[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run over those shards in a local folder keeps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for name, data in shards.items():
        (folder / name).write_bytes(data)
    recipe = str(write_recipe(folder))
    assert main(["run", recipe, "--shards", f"{folder}/{PATTERN}", "-o", str(folder / "out")]) == 0
    return kept(str(folder / "out"))


def test_what_passes_leaves_no_trace(
    place: Place, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fault, most of them twice in a row, costs requests and no byte."""
    place.proxy.faults = {SHARD_OF[why]: [fault] * (1 if fault.stall else 2) for why, fault in FAULTS.items()}
    out = str(tmp_path / "out")
    assert run_over(place, tmp_path, out) == 0
    assert not any(place.proxy.faults.values()), "all of them happened"
    assert kept(out) == undisturbed
    assert main(["verify", out, "--shards", place.shards + PATTERN]) == 0


def test_what_lasts_commits_nothing_and_is_made_up_for(
    place: Place,
    undisturbed: dict[str, str],
    shards: Mapping[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A shard that cannot be had gives exit code 3 and no ledger; the next run judges it, or its new bytes."""
    out = str(tmp_path / "out")
    replaced = SHARD_OF["replaced meanwhile"]
    another = shard_of(tmp_path, replaced, 5)
    change = Fault(cut=BOUNDARY, meanwhile=lambda: place.put(replaced, another))
    lasting = {SHARD_OF[why]: [FAULTS[why]] * 999 for why in LASTING}
    place.proxy.faults = {**lasting, replaced: [change]}
    assert run_over(place, tmp_path, out, "--set", "run.read_attempts=1") == 3
    said = capsys.readouterr()
    asked = 999 - len(place.proxy.faults[SHARD_OF["an error"]])
    assert asked == 3 * retry.ATTEMPTS, "for two judges' checks and the run; no library asks again by itself"
    there = kept(out)
    for name in NAMES:
        away = name == replaced or name in lasting
        assert (tmp_path / f"out/wdsfilter/ledger/{name[:-4]}.parquet").exists() != away, name
        assert there.get(name) == (None if away else undisturbed.get(name)), name
        assert (f"not read: {name}" in said.out) == away
    place.proxy.faults.clear()
    assert run_over(place, tmp_path, out) == 0
    there = kept(out)
    assert {**undisturbed, replaced: there[replaced]} == there
    assert there[replaced] != undisturbed[replaced]


def test_credentials_that_expire_are_told_in_a_line(
    place: Place, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the start and in the middle of a run: a line, no secret, no trace, and with new ones it goes on."""
    place.proxy.always = place.expired
    assert run_over(place, tmp_path, place.output, shards=FEW) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("wdsfilter: ")
    assert not any(secret in said.err + said.out for secret in SECRETS)

    place.proxy.always = None

    def expire() -> None:
        place.proxy.always = place.expired

    place.proxy.faults = {"s-02.tar": [Fault(meanwhile=expire)]}
    assert run_over(place, tmp_path, place.output, "--set", "run.read_attempts=1", shards=FEW) in (1, 3)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert not any(secret in said.err + said.out for secret in SECRETS)
    place.proxy.always = None
    assert kept(place.output).items() <= undisturbed.items()
    assert run_over(place, tmp_path, place.output, shards=FEW) == 0
    assert kept(place.output) == few_of(undisturbed)


def test_writes_that_fail_lose_nothing(
    place: Place, undisturbed: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Some requests that write fail, carried out or not; then all do: a line, and the next run goes on."""
    if not place.can_be_written:
        pytest.skip("cannot be written to")
    spoiled = [Fault(503), Fault(500, carried_out=True), Fault(NO_ANSWER, carried_out=True)]
    spoiled = [fault for bad in spoiled for fault in (bad, Fault(), Fault(), Fault())]
    place.proxy.faults = {WRITING: [*spoiled * 2, *[Fault(500)] * 999]}
    assert run_over(place, tmp_path, place.output, shards=FEW) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert kept(place.output).items() <= undisturbed.items()
    place.proxy.faults = {WRITING: spoiled * 99}
    assert run_over(place, tmp_path, place.output, shards=FEW) == 0
    assert kept(place.output) == few_of(undisturbed)
    assert main(["verify", place.output, "--shards", place.shards + FEW]) == 0


def test_a_store_that_asks_for_a_pause_gets_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After is obeyed wherever a store's library keeps it."""
    if place.shards.startswith(("gs://", "sftp://")):
        pytest.skip("nothing of it is kept")
    slept: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(sleep=slept.append))
    place.proxy.faults = {CALM: [Fault(429, retry_after="7")]}
    with storage.open_read(place.shards + CALM) as stream:
        assert len(stream.read()) == SIZE
    assert slept == [7.0]
