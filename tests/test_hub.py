"""Reading from the hub, and `wdsfilter push` to it, against a server on loopback that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flaky import Fault
from tests.hub import TOKEN, HubServer, hub_server, speak_to_hub
from tests.runs import make_shards, tree, write_recipe
from tests.selections import exported
from tests.shards import pairs, tar_bytes
from wdsfilter import storage
from wdsfilter.cli import main
from wdsfilter.errors import ReadError
from wdsfilter.push.card import merged
from wdsfilter.ranges import Range, read_ranges
from wdsfilter.shards.source import Pattern, find_shards

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>'")  # the hub library's own HTTP client
DATA = tar_bytes(pairs(4))
REPO = "somebody/pictures"
TARGET = f"hf://datasets/{REPO}"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        speak_to_hub(server, monkeypatch)
        yield server


def read(location: str) -> bytes:
    with storage.open_read(location) as stream:
        return stream.read()


def test_a_data_set_is_read_like_a_folder(hub: HubServer) -> None:
    """Patterns and folders list it page by page; the bytes are those of the revision that was named."""
    old = hub.commit(REPO, {f"train/{n}.tar": DATA + bytes(512 * n) for n in range(5)} | {"README.md": b"x"})
    hub.commit(REPO, {"train/0.tar": DATA[::-1]})
    hub.commit(REPO, {"only.tar": DATA}, "other")
    listed = [f"{n}.tar" for n in range(5)]
    for pattern in (f"{TARGET}/train/*.tar", f"{TARGET}/train/", f"{TARGET}@{old}/train/{{0..4}}.tar"):
        assert [shard.name for shard in find_shards([Pattern(pattern)])] == listed
    assert read(f"{TARGET}/train/0.tar") == DATA[::-1]
    assert read(f"{TARGET}@{old}/train/0.tar") == DATA
    assert read(f"{TARGET}@other/only.tar") == DATA
    location = f"{TARGET}/train/3.tar"
    assert read_ranges([Range(location, 700, 300)]) == [(DATA + bytes(1536))[700:1000]]
    stat = storage.stat(location)
    assert (stat.size, bool(stat.etag)) == (len(DATA) + 1536, True)
    for missing in (
        f"{TARGET}/train/9.tar",
        f"{TARGET}@none/train/0.tar",
        "hf://datasets/somebody/none/0.tar",
    ):
        with pytest.raises(ReadError):
            storage.stat(missing)


def test_what_fails_is_asked_again(hub: HubServer) -> None:
    """Cuts and errors behind the redirect cost requests and no bytes; what lasts is an error without secrets."""
    hub.commit(REPO, {"0.tar": DATA})
    path = f"/datasets/{REPO}/resolve/main/0.tar"
    read(f"{TARGET}/0.tar")
    [digest] = hub.stored
    for faults in ([Fault(cut=0)], [Fault(cut=700)] * 3, [Fault(500), Fault(429), Fault(503)]):
        hub.faults = {f"/cdn/{digest}": list(faults)}
        assert read(f"{TARGET}/0.tar") == DATA
        assert not hub.faults[f"/cdn/{digest}"]
    for place in (f"/cdn/{digest}", path):
        for status in (500, 403):
            hub.faults = {place: [Fault(status)] * 999}
            with pytest.raises(ReadError) as caught:
                read(f"{TARGET}/0.tar")
            assert "hush" not in str(caught.value)
            assert TOKEN not in str(caught.value)


def test_an_object_that_changes_is_noticed(hub: HubServer) -> None:
    """A shard that a commit replaces while it is read commits nothing."""
    hub.commit(REPO, {"0.tar": DATA})
    with storage.open_read(f"{TARGET}/0.tar") as stream:
        stream.read(512)
        hub.commit(REPO, {"0.tar": DATA[:-512] + b"x" * 512})
        with pytest.raises(ReadError, match="when reading began"):
            stream.read()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three shards, one of which keeps nothing."""
    pattern = make_shards(tmp_path / "in", 3)
    assert main(["run", str(write_recipe(tmp_path)), "--shards", pattern, "-o", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def outputs(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in tree(run)}


def test_push_brings_a_run_to_the_hub(
    hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every committed and derived file is there with its bytes, in few commits, and the data set can be read again."""
    from wdsfilter.push import pushing

    monkeypatch.setattr(pushing, "SHARDS_PER_COMMIT", 2)
    assert main(["push", str(run), TARGET]) == 0
    there = dict(hub.files(REPO))
    card = there.pop("README.md").decode()
    del there[".gitattributes"]
    assert there == outputs(run)
    assert hub.private[REPO]
    assert hub.messages == ["Add 2 shards", "Add 1 shard", "Add the lists of shards and the card"]
    for said in (
        "| judged | 36 |",
        "`rules.min_words` | 12 |",
        "Grade by `scripted`",
        '"scripted"',
        f'"{REPO}"',
    ):
        assert said in card
    assert "license" not in card
    assert TOKEN not in card + "".join(capsys.readouterr())
    assert [shard.name for shard in find_shards([Pattern(f"{TARGET}/*.tar")])] == [
        name for name in outputs(run) if name.endswith(".tar")
    ]


def test_push_goes_on_where_it_stopped(hub: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is not sent again, nor committed again where an answer got lost; nothing to do is no commit."""
    from wdsfilter.push import pushing

    monkeypatch.setattr(pushing, "SHARDS_PER_COMMIT", 1)
    hub.faults[f"/api/datasets/{REPO}/commit/main"] = [Fault(), *[Fault(403)] * 9]
    assert main(["push", str(run), TARGET]) == 1
    assert hub.messages == ["Add 1 shard"]
    assert "README.md" not in hub.files(REPO)
    hub.faults[f"/api/datasets/{REPO}/commit/main"] = [Fault(503)]
    assert main(["push", str(run), TARGET]) == 0
    assert main(["push", str(run), TARGET]) == 0
    assert hub.messages == ["Add 1 shard"] * 3 + ["Add the lists of shards and the card"]
    uploads = hub.sent("/upload/")
    assert len(uploads) == len(set(uploads)), "nothing was sent twice"


def fill(run: Path) -> None:
    """Judge what a judge of the run never saw."""
    recipe, shards = run.parent / "recipe.yaml", run.parent / "in/*.tar"
    assert main(["run", str(recipe), "--shards", str(shards), "-o", str(run), "--fill"]) == 0


def test_push_brings_the_fill_along(
    hub: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is downloaded again is what was filled: it verifies, and the same samples are selected from it."""
    assert main(["push", str(run), TARGET]) == 0
    fill(run)
    assert main(["push", str(run), TARGET]) == 0
    assert hub.messages[-2:] == ["Add 1 filled shard", "Add the lists of shards and the card"]
    there = dict(hub.files(REPO))
    assert "`wdsfilter/fill/` holds the ledgers of 1 shard " in there.pop("README.md").decode()
    del there[".gitattributes"]
    assert there == outputs(run)
    copy = tmp_path / "copy"
    for name, data in there.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(data)
    assert main(["verify", str(copy)]) == 0
    question = ["--where", "scripted.score >= 5 and reason like 'rules.%'"]
    keys = [exported([one], tmp_path / f"{one.name}.txt", *question) for one in (run, copy)]
    assert keys[0] == keys[1] != []
    capsys.readouterr()
    assert main(["push", str(run), TARGET]) == 0
    assert f"{TARGET}@main: 0 shards sent" in capsys.readouterr().out


def test_a_fill_that_is_not_finished_is_pushed_on_demand(
    hub: HubServer, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Like a run: refused in one line that names it, unless --partial."""
    fill(run)
    lost = next((run / "wdsfilter/fill/wdsfilter/ledger").iterdir())
    lost.unlink()
    assert main(["push", str(run), TARGET]) == 1
    assert f"{run}/wdsfilter/fill is unfinished: 0 of 1 shard;" in capsys.readouterr().err
    assert main(["push", str(run), TARGET, "--partial"]) == 0
    assert lost.relative_to(run).as_posix() not in hub.files(REPO)


def test_push_keeps_what_the_owner_wrote(hub: HubServer, run: Path) -> None:
    """Front matter and text of a card stay as they are; the generated part is renewed in its place."""
    mine = "---\nlicense: cc-by-4.0\n---\n# Mine\n"
    hub.commit(REPO, {"README.md": mine.encode()})
    assert main(["push", str(run), TARGET]) == 0
    card = hub.files(REPO)["README.md"].decode()
    assert card.startswith(mine)
    assert "| judged | 36 |" in card
    generated = card.removeprefix(mine).strip() + "\n"
    changed = card.replace("| judged | 36 |", "| judged | 35 |") + "\nAfter.\n"
    assert merged(changed, generated) == card + "\nAfter.\n"


def test_push_refuses(hub: HubServer, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that is not finished, another run's data set, a shard that is not its ledger's, and what is no data set."""
    shard = next(path for path in run.glob("*.tar"))
    data = shard.read_bytes()
    hub.commit(REPO, {shard.name: data[::-1]})
    for target, why in {
        TARGET: f"holds another {shard.name}",
        "hf://somebody/model": "expected hf://datasets/OWNER/NAME",
        "s3://bucket/data": "expected hf://datasets/OWNER/NAME",
    }.items():
        assert main(["push", str(run), target]) == 1
        assert why in capsys.readouterr().err
    shard.write_bytes(data[::-1])
    assert main(["push", str(run), f"{TARGET}@other/deep"]) == 1
    assert "is not the shard that its ledger speaks of" in capsys.readouterr().err
    shard.unlink()
    assert main(["push", str(run), f"{TARGET}@other/deep"]) == 1
    assert "--partial" in capsys.readouterr().err
    assert main(["push", str(run), f"{TARGET}@other/deep", "--partial"]) == 0
    files = hub.files(REPO, "other")
    assert f"deep/{shard.name}" not in files
    assert "Not all of it is here yet" in files["deep/README.md"].decode()
