"""The report: its numbers are the ledgers', strangers' text stays text, and the page needs nothing else."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.fakes import vlm_run
from tests.pages import HOSTILE, Elements, check_harmless, embedded, in_chromium, opened, text_of
from tests.runs import forgetful, jpeg, make_shards, write_recipe, write_shard
from wdsfilter import ledger
from wdsfilter.cli import main
from wdsfilter.demo.world import write_world
from wdsfilter.output import OutputFolder
from wdsfilter.report import html as html_module


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output of a run with probabilities and known truth, and its input shards."""
    folder = tmp_path_factory.mktemp("report")
    shards = write_world(folder / "in", samples=120, samples_per_shard=40, seed=3, broken=0.05)
    with pytest.MonkeyPatch.context() as patch:
        return vlm_run(folder, shards, patch, HOSTILE), shards


@pytest.fixture(scope="module")
def page(world: tuple[Path, str]) -> Path:
    out, shards = world
    assert main(["report", str(out), "--shards", shards]) == 0
    return out / "wdsfilter/report.html"


def rows_of(out: Path) -> list[ledger.Row]:
    folder = OutputFolder(out)
    return [row for name in folder.shard_names() for row in ledger.read_rows(folder.ledger(name))]


def test_counts_at_every_threshold_are_the_ledgers(world: tuple[Path, str], page: Path) -> None:
    """At each place of the slider, kept pairs and those of them that are right are what the ledgers hold."""
    rows = [row for row in rows_of(world[0]) if row["vlm"] is not None]
    data = embedded(page)
    assert [measure["name"] for measure in data["measures"]] == ["probability", "grade", "score"]
    for measure in data["measures"]:
        for place, edge in enumerate(measure["edges"]):
            if measure["name"] == "probability":
                kept = [row for row in rows if sum(row["vlm"]["p"][8:]) >= edge]
            else:
                kept = [row for row in rows if row["vlm"][measure["name"]] >= edge]
            assert measure["kept"][place] == len(kept), (measure["name"], edge)
            assert measure["bytes"][place] == sum(row["length"] + 1024 for row in kept)
            assert measure["known"][place] == len(kept)
            assert measure["right"][place] == sum(int(row["score"]) >= 9 for row in kept)


def test_the_recipe_s_threshold_keeps_what_the_run_kept(world: tuple[Path, str], page: Path) -> None:
    """The slider starts where the recipe put the threshold, and the page then says what the run says."""
    main_measure = embedded(page)["measures"][0]
    place = main_measure["edges"].index(main_measure["start"])
    kept = sum(row["status"] == "kept" for row in rows_of(world[0]))
    assert main_measure["start"] == 0.5
    assert main_measure["kept"][place] == kept > 0
    assert f"<h1>{kept} of 120 pairs kept</h1>" in page.read_text("utf-8")


def test_every_reason_and_its_count_are_told(world: tuple[Path, str], page: Path) -> None:
    """The flow names each reason for which pairs were lost, with their number."""
    text = page.read_text("utf-8")
    lost = [row["reason"] for row in rows_of(world[0]) if row["reason"]]
    assert lost
    for reason in set(lost):
        row = re.search(rf"<code>{re.escape(reason)}</code></th>.*?</tr>", text, re.S)
        assert row is not None
        assert f"&minus;{lost.count(reason)}</td>" in row[0]


def test_strangers_text_stays_text(tmp_path: Path, world: tuple[Path, str], page: Path) -> None:
    """Captions, keys and justifications that are markup, template or script come out as text."""
    write_shard(
        tmp_path / "in/<img src=y>.tar",
        ["<b onclick=x>&amp;", HOSTILE.replace("/", "").replace(".", "")],
        HOSTILE.replace("{", "{{").replace("}", "}}"),
    )
    recipe = write_recipe(tmp_path)
    arguments = ["--shards", str(tmp_path / "in")]
    assert main(["run", str(recipe), *arguments, "-o", str(tmp_path / "out")]) == 0
    assert main(["report", str(tmp_path / "out"), *arguments]) == 0
    for path in (page, tmp_path / "out/wdsfilter/report.html"):
        assert HOSTILE in check_harmless(path).texts


def test_same_folder_same_page(world: tuple[Path, str], page: Path, tmp_path: Path) -> None:
    """The page is a function of folder, shards and seed: no clock, no chance."""
    out, shards = world
    for name, seed in (("a", 0), ("b", 1)):
        assert (
            main(["report", str(out), "--shards", shards, "-o", str(tmp_path / name), "--seed", str(seed)])
            == 0
        )
    assert (tmp_path / "a").read_bytes() == page.read_bytes()
    assert (tmp_path / "b").read_bytes() != page.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_page_is_small(page: Path) -> None:
    """The page stays below 8 MB: a few hundred small pictures, whatever the run's size."""
    assert page.stat().st_size < 8_000_000
    assert len(embedded(page)["cards"]) < 600


def test_pictures_come_from_where_the_run_read_them(
    world: tuple[Path, str], page: Path, tmp_path: Path
) -> None:
    """Without --shards the page is the same, where the input shards still lie on this machine."""
    path = tmp_path / "report.html"
    assert main(["report", str(world[0]), "-o", str(path)]) == 0
    assert embedded(path)["cards"] == embedded(page)["cards"]
    assert path.read_text("utf-8").count("<img ") == page.read_text("utf-8").count("<img ")


def test_without_input_only_kept_samples_have_pictures(world: tuple[Path, str], tmp_path: Path) -> None:
    """Pictures of kept samples come from the output then, and the page says that others lack theirs."""
    path = tmp_path / "report.html"
    assert main(["report", str(forgetful(world[0], tmp_path / "out")), "-o", str(path)]) == 0
    text = path.read_text("utf-8")
    assert "cannot be shown" in text
    statuses = [card["status"] for card in embedded(path)["cards"]]
    assert text.count("<img ") == statuses.count("kept") > 0


def test_unfinished_run(tmp_path: Path) -> None:
    """A run that is not finished has a page too, which says so."""
    shards, recipe, out = make_shards(tmp_path / "in", 3), write_recipe(tmp_path), tmp_path / "out"
    assert main(["run", str(recipe), "--shards", shards, "-o", str(out)]) == 0
    (out / "wdsfilter/ledger/s-0001.parquet").unlink()
    assert main(["report", str(out), "--shards", shards]) == 0
    text = (out / "wdsfilter/report.html").read_text("utf-8")
    assert "<strong>unfinished</strong>" in text
    for path in (out / "wdsfilter/ledger").iterdir():
        path.unlink()
    assert main(["report", str(out)]) == 0


def test_rules_alone(tmp_path: Path) -> None:
    """A run whose only judge is `rules` has no threshold to move, and a page of all the rest."""
    shards = make_shards(tmp_path / "in", 2)
    recipe = write_recipe(tmp_path, "judges: [rules: {min_words: 2}]\nguard: off\n")
    assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / "out")]) == 0
    assert main(["report", str(tmp_path / "out"), "--shards", shards]) == 0
    page = tmp_path / "out/wdsfilter/report.html"
    assert embedded(page)["measures"] == []
    assert 'id="slider"' not in page.read_text("utf-8")


def test_another_shard_of_that_name(tmp_path: Path) -> None:
    """A shard that is not the one that was judged gives no pictures, and the page says why."""
    write_shard(tmp_path / "in/s.tar", ["a", "b"])
    recipe, out = write_recipe(tmp_path), tmp_path / "out"
    assert main(["run", str(recipe), "--shards", str(tmp_path / "in"), "-o", str(out)]) == 0
    write_shard(tmp_path / "in/s.tar", [f"c{n}" for n in range(20)])
    assert main(["report", str(out), "--shards", str(tmp_path / "in")]) == 0
    text = (out / "wdsfilter/report.html").read_text("utf-8")
    assert "<img " not in text
    assert "when it was judged" in text


def test_exact_duplicates_are_counted(tmp_path: Path) -> None:
    """Images that are there more than once, byte for byte, are counted over all shards."""
    from tests.shards import write_shard as write_members

    members = [
        (f"{n}.{kind}", data)
        for n in range(4)
        for kind, data in (("jpg", jpeg(n % 2)), ("txt", b"two words"))
    ]
    write_members(tmp_path / "in/a.tar", members)
    assert (
        main(
            [
                "run",
                str(write_recipe(tmp_path)),
                "--shards",
                str(tmp_path / "in"),
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    assert main(["report", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/wdsfilter/report.html").read_text("utf-8")
    assert "byte for byte: 2; copies too many: 2" in text


def test_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that is no run's is a user's mistake."""
    assert main(["report", str(tmp_path)]) == 1
    assert "is not the output folder of a run" in capsys.readouterr().err


@in_chromium
def test_in_a_browser_slider_and_search_work(page: Path, tmp_path: Path) -> None:
    """Opened from its file, with a threshold and a search in its address, the page shows both and logs no error."""
    data = embedded(page)
    measure = next(m for m in data["measures"] if m["name"] == "grade")
    done = opened(page, tmp_path, "#measure=grade&threshold=8&search=star")
    found = Elements(done)
    kept = measure["kept"][measure["edges"].index(8)]
    assert text_of(done, "r-kept") == str(kept)
    shown = [a for tag, a in found.tags if a.get("class") == "card" and "hidden" not in a]
    captions = re.findall(r'<p class="caption">(.*?)</p>', page.read_text("utf-8"), re.S)
    assert len(shown) == sum("star" in html.unescape(caption).lower() for caption in captions) > 0
    for attributes in shown:
        card = data["cards"][int(attributes["data-number"] or "")]
        if card["open"]:
            state = "kept" if card["values"]["grade"] >= 8 else "dropped"
            where = done.index(f'data-number="{attributes["data-number"]}"')
            assert f'"verdict {state}"' in done[where:].partition("</li>")[0]
    confusion = [int(text_of(done, f"r-{cell}")) for cell in ("kept-right", "kept-wrong", "missed", "rest")]
    judged = [row for row in rows_of(page.parent.parent) if row["status"] != "unreadable"]
    passed = [row["vlm"] is not None and row["vlm"]["grade"] >= 8 for row in judged]
    worth = [int(row["score"]) >= 9 for row in judged]
    for cell, wanted in zip(confusion, ((1, 1), (1, 0), (0, 1), (0, 0)), strict=True):
        assert cell == sum((keep, good) == wanted for keep, good in zip(passed, worth, strict=True))


@in_chromium
def test_in_a_browser_a_person_moves_the_slider(page: Path, chromium: Browser) -> None:
    """By keys, by a click and by dragging: counts, share, size, command and each picture's verdict follow."""
    data, shown = embedded(page), chromium.open(page.as_uri())

    def check(name: str) -> float:
        measure = next(m for m in data["measures"] if m["name"] == name)
        place = int(shown.evaluate("document.getElementById('slider').value"))
        edge, kept = measure["edges"][place], measure["kept"][place]
        assert shown.text("r-kept") == str(kept)
        assert shown.text("r-share") == html_module.share(kept, 120)
        assert shown.text("r-size") == html_module.size(measure["bytes"][place])
        assert shown.text("r-where") == f"{measure['selects']} >= {edge:g}"
        verdicts = shown.evaluate(
            "[...document.querySelectorAll('.card')].map("
            "(c) => [c.dataset.number, c.querySelector('.state').textContent])"
        )
        for number, state in verdicts:
            card = data["cards"][int(number)]
            if card["open"]:
                assert (state == "kept") == (card["values"][name] >= edge)
        return float(edge)

    shown.evaluate("document.getElementById('slider').focus()")
    assert check("probability") == 0.5
    shown.press("ArrowRight", "ArrowRight", "ArrowUp")
    assert check("probability") == 0.53
    shown.press("ArrowLeft")
    assert check("probability") == 0.52
    shown.press("End")
    assert check("probability") == 1
    shown.click("[data-measure=grade]")
    assert check("grade") == 9
    shown.drag("#slider", 0.8, 0.4)
    assert check("grade") == 5
    shown.click("#slider", 0.6)
    assert check("grade") == 7
    shown.click("[data-group=above]")
    grades = shown.evaluate(
        "[...document.querySelectorAll('.card:not([hidden])')].map((c) => c.dataset.number)"
    )
    assert {data["cards"][int(n)]["values"]["grade"] for n in grades[:3]} == {7.0}
    shown.click("#reset")
    assert check("probability") == 0.5
    assert shown.complaints == []


@in_chromium
def test_in_a_browser_a_search_is_typed(page: Path, chromium: Browser) -> None:
    """Typed letter by letter, a search leaves the pictures whose captions hold it; captions can be read whole."""
    shown = chromium.open(page.as_uri(), width=390)
    shown.click("#search")
    shown.press(*"Star")
    captions = shown.evaluate(
        "[...document.querySelectorAll('.card:not([hidden]) .caption')].map((c) => c.textContent)"
    )
    every = shown.evaluate("[...document.querySelectorAll('.caption')].map((c) => c.textContent)")
    assert sorted(captions) == sorted(c for c in every if "star" in c.lower())
    assert shown.text("found").startswith(f"{len(captions)} pair")
    assert shown.evaluate("document.documentElement.scrollWidth") == 390
    height = "Math.max(...[...document.querySelectorAll('.caption')].map((c) => c.clientHeight))"
    cut = shown.evaluate(height)
    shown.click("#whole")
    assert shown.evaluate(height) > cut
    assert shown.complaints == []


@pytest.mark.parametrize("name", ["grade", "score", "probability"])
def test_the_command_selects_what_the_page_keeps(
    world: tuple[Path, str], page: Path, name: str, tmp_path: Path
) -> None:
    """The page names the `select` of a threshold: it keeps as many pairs as the page says."""
    measure = next(m for m in embedded(page)["measures"] if m["name"] == name)
    place = len(measure["edges"]) // 2
    where = f"{measure['selects']} >= {measure['edges'][place]:g}"
    assert main(["select", str(world[0]), "--export", str(tmp_path / "keys.txt"), "--where", where]) == 0
    assert len((tmp_path / "keys.txt").read_text().splitlines()) == measure["kept"][place] > 0


@in_chromium
def test_nothing_to_show(tmp_path: Path, chromium: Browser) -> None:
    """A run whose pairs never reached the judge with the threshold, or without any pair, says so in a sentence."""
    write_shard(tmp_path / "in/s.tar", ["a", "b"], "short")
    out, common = tmp_path / "out", ["--shards", str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    assert main(["run", str(write_recipe(tmp_path)), *common]) == 0
    for ledgers, sentence in ((True, "No pair came as far as"), (False, "No pair has been judged yet")):
        assert main(["report", str(out)]) == 0
        text = (out / "wdsfilter/report.html").read_text("utf-8")
        assert sentence in text
        assert 'id="slider"' not in text
        assert chromium.open((out / "wdsfilter/report.html").as_uri()).complaints == []
        if ledgers:
            (out / "wdsfilter/ledger/s.parquet").unlink()


def test_truth_is_what_the_recipe_says(tmp_path: Path) -> None:
    """A column called score is no truth unless the recipe's `ledger.truth` names it."""
    shards = write_world(tmp_path / "in", samples=6, seed=3)
    for name, said in (("with", ", truth: score"), ("without", "")):
        ledger = f"ledger: {{columns: [score]{said}}}"
        recipe = write_recipe(tmp_path, f"judges: [scripted: {{seed: 7}}]\nguard: off\n{ledger}\n")
        assert main(["run", str(recipe), "--shards", shards, "-o", str(tmp_path / name)]) == 0
        assert main(["report", str(tmp_path / name)]) == 0
        data = embedded(tmp_path / name / "wdsfilter/report.html")
        assert data["known"] == (6 if said else 0)
        assert (data["measures"][0]["right"] is not None) == bool(said)


def test_a_selection_has_a_page(world: tuple[Path, str], tmp_path: Path) -> None:
    """The page of a selection shows what was selected, by which question, with pictures from its own shards."""
    out, shards = world
    where = ["--where", "vlm.score >= 7", "--shards", shards, "--workers", "1"]
    assert main(["select", str(out), *where, "-o", str(tmp_path / "new")]) == 0
    assert main(["report", str(tmp_path / "new")]) == 0
    page = tmp_path / "new/wdsfilter/report.html"
    count = sum(row["vlm"] is not None and row["vlm"]["score"] >= 7 for row in rows_of(out))
    text = page.read_text("utf-8")
    assert f"<h1>{count} of {count} pairs kept</h1>" in text
    assert "vlm.score &gt;= 7" in text
    assert embedded(page)["measures"][0]["kept"][0] == count
    assert text.count("<img ") == len(embedded(page)["cards"]) > 0
