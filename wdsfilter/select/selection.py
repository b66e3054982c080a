"""A selection from its question to its goal: an output folder, a stream or a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Literal

from wdsfilter import fingerprint
from wdsfilter.counted import counted
from wdsfilter.errors import OutputError, QuestionError, StoreError
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Output
from wdsfilter.select import exports
from wdsfilter.select.answer import Answer, ask, worth
from wdsfilter.select.columns import ledger_columns
from wdsfilter.select.copying import Copying
from wdsfilter.select.cut import Cut, claim_folder, cut
from wdsfilter.select.inputs import (
    Located,
    check_outside,
    check_unchanged,
    locate,
    source_shards,
    unfinished,
)
from wdsfilter.select.question import Question
from wdsfilter.select.sources import Source
from wdsfilter.shards.writer import write_stream
from wdsfilter.summary import finish

FORMAT = 1
"""Version of a selection's folder."""

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Selection:
    """What is selected from what, and how the question may be worked on.

    ``patterns`` and ``remaps`` say where the input shards lie; ``scores`` whether scores go along;
    ``tell`` is called with remarks for a person.
    """

    question: Question
    sources: Sequence[Source]
    patterns: Sequence[str] = ()
    remaps: Sequence[str] = ()
    scores: bool = True
    workers: int = 1
    memory: str = "2GiB"
    tell: Tell = lambda remark: None

    def into(self, folder: OutputFolder, per_shard: int, check: Callable[[], None] = lambda: None) -> int:
        """Cut even shards into ``folder``, and say how many samples they hold.

        ``check`` is called between shards and may raise. Raises QuestionError, InputError, OutputError, ReadError.
        """
        root = folder.root.resolve() if isinstance(folder.root, Path) else folder.root
        for source in self.sources:
            if source.folder.root == root or source.folder.holds(str(root)):
                raise OutputError(f"{source.folder.root} is selected from; choose a folder that is not in it")
        record = self._record(per_shard)
        folder.probe()
        folder.remove_dead_temporaries()
        temporary = folder.temporary()
        temporary.mkdir()
        try:
            answer, located, copying = self._asked(temporary)
            check_outside(located.values(), folder)
            claim_folder(folder, record)
            job = Cut(
                folder.root,
                copying,
                located,
                ledger_columns(self.sources),
                answer.rows,
                per_shard,
                fingerprint.digest(record["sources"]),
                fingerprint.digest(record["question"]),
            )
            for _ in cut(job, self.workers, check):
                pass
            finish(folder)
            return answer.rows
        except OSError as error:
            if isinstance(error, StoreError) or error.filename is not None:  # says where
                raise
            raise OutputError(
                f"{folder.root}: {error.strerror or error}; what is committed is whole, run again to go on"
            ) from error
        finally:
            folder.remove_own_temporaries()

    def stream(self, file: BinaryIO) -> None:
        """Write the chosen samples as one tar. Raises BrokenPipeError, and what :meth:`into` does."""
        with TemporaryDirectory() as temporary:
            answer, located, copying = self._asked(Path(temporary))
            tables = copying.tables(0, answer.rows)
            write_stream((samples.buffers for table in tables for samples in copying.stored(table)), file)
            check_unchanged(located.values())

    def export(self, path: Path) -> int:
        """Write what was chosen as a list, and say how many samples it names. Raises QuestionError, OutputError."""
        exports.check_export(path)
        with TemporaryDirectory() as temporary:
            answer = self._answer(Path(temporary), exports.needed(path))
            exports.export(answer.path, path)
            return answer.rows

    @property
    def _added(self) -> Literal["member", "none"]:
        """How scores are added to samples; those that have them already keep them."""
        return "member" if self.scores and not any(s.has_scores for s in self.sources) else "none"

    def _asked(self, temporary: Path) -> tuple[Answer, dict[str, Located], Copying]:
        answer = self._answer(temporary)
        located = locate(source_shards(answer.path), self.patterns, self.remaps, self.sources)
        judges = tuple(source.own(judge) for source in self.sources for judge in source.judges)
        most = max(source.record.max_sample for source in self.sources)
        output = Output(scores=self._added)
        locations = {name: shard.url for name, shard in located.items()}
        return answer, located, Copying(answer.path, locations, judges, output, most)

    def _answer(self, temporary: Path, only: Sequence[str] = ()) -> Answer:
        for remark in unfinished(self.sources):
            self.tell(remark)
        answer = ask(
            self.question, self.sources, temporary, memory=self.memory, threads=self.workers, only=only
        )
        for remark in answer.remarks:
            self.tell(remark)
        for judge, count in answer.unseen.items():
            self.tell(
                f"never seen by {judge}: {count:,} of {counted(answer.readable, 'readable sample')}, since "
                f"an earlier judge rejected them. {self._way_to_fill(judge)}"
            )
        if not answer.rows:
            raise QuestionError(f"none of {counted(answer.readable, 'readable sample')} is chosen")
        by = f", the best by {answer.by}" if answer.by else ""
        self.tell(f"chosen: {answer.rows:,} of {counted(answer.readable, 'readable sample')}{by}")
        return answer

    def _way_to_fill(self, judge: str) -> str:
        """How a person gets the numbers of a judge of the question about what it never saw."""
        source = next(s for s in self.sources if judge in map(s.said, s.judges))
        if source.selected:
            return "Fill the run that they come from (wdsfilter run RECIPE --fill), and select from it again"
        return f"To have it judge them: wdsfilter run RECIPE --output {source.folder.root} --fill"

    def _record(self, per_shard: int) -> fingerprint.Record:
        """The content of ``select.json``: everything that changes a byte of the output, and no path or time."""
        return {
            "wdsfilter": {"format": FORMAT, "run_format": fingerprint.FORMAT},
            "question": self.question.record(worth(self.question, self.sources)),
            "sources": [
                {
                    "name": s.name,
                    "fingerprints": dict(s.record.fingerprints),
                    "judges": {s.said(judge): said for judge, said in s.record.judges.items()},
                    "ledgers": s.digest(),
                    **({"selected": True} if s.selected else {}),
                }
                for s in self.sources
            ],
            "output": {"samples_per_shard": per_shard, "scores": self._added},
        }
