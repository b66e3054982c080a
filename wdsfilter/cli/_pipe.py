"""`wdsfilter run RECIPE --output -`: kept samples as one tar to standard output, everything else on stderr."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wdsfilter import launch
from wdsfilter.cli import err, tar_output
from wdsfilter.cli.look import counts_table
from wdsfilter.counted import counted
from wdsfilter.errors import GuardTripped, UserError

if TYPE_CHECKING:
    from wdsfilter.kept import KeptStream
    from wdsfilter.recipe import Recipe
    from wdsfilter.samples import Member
    from wdsfilter.shards.source import Shard
    from wdsfilter.stages import ShardEnds
    from wdsfilter.stop import Stop


@dataclass(frozen=True, slots=True)
class InputStream:
    """Shards in the order in which they are judged, and what judges them."""

    shards: Sequence[Shard]
    judged: KeptStream


def input_stream(recipe: Recipe, limit: int | None, where: launch.Place, stop: Stop) -> InputStream:
    """What is to be streamed; all that is refused before a model is loaded."""
    from wdsfilter.judges import Runtime
    from wdsfilter.kept import KeptStream
    from wdsfilter.plan import input_shards, resolved
    from wdsfilter.shards.source import seeded_order
    from wdsfilter.workers import default_count

    if where.world_size > 1:
        raise UserError(
            "several processes cannot write one tar; start without a launcher, or let wdsfilter.stream share the "
            "shards among them (docs/python.md)"
        )
    shards = seeded_order(input_shards(recipe), recipe.seed)[:limit]
    recipe, remarks = resolved(recipe)
    for remark in remarks:
        err.print(remark, markup=False)
    workers = default_count(where.local_world_size) if recipe.run.workers is None else recipe.run.workers
    return InputStream(shards, KeptStream(recipe, Runtime(recipe.run.device), workers, stop, _note))


def stream(source: InputStream) -> int:
    """Write the tar, and return the exit code: a run's; 0 where whoever reads had enough."""
    from wdsfilter import summary
    from wdsfilter.progress import ProgressLine, Sofar
    from wdsfilter.shards.writer import stored, write_stream
    from wdsfilter.stages import ShardEnds

    shards, judged = source.shards, source.judged
    ended: list[ShardEnds] = []

    def kept() -> Generator[Sequence[Member], None, None]:
        for found in judged.kept(shards):
            if isinstance(found, ShardEnds):
                ended.append(found)
                _tell(found)
            else:
                yield found.members

    def sofar() -> Sofar:
        damaged = sum(end.damage is not None for end in ended)
        return Sofar(judged.counting.counts, len(ended), 0, damaged)

    judged.stop.gently()
    try:
        with tar_output() as file, ProgressLine(err, len(shards), sofar), closing(kept()) as samples:
            write_stream(map(stored, samples), file)
    except GuardTripped as error:
        err.print(f"stopped by the guard: {error}", markup=False)
        return summary.EXIT_GUARD
    except BrokenPipeError:
        err.print("whoever reads the tar has closed it")
        return summary.EXIT_DONE
    counts, unread = judged.counting.counts, sum(end.error is not None for end in ended)
    err.print(counts_table(counts, f"{len(ended) - unread} of {counted(len(shards), 'shard')}"))
    found = summary.troubles(counts, sofar().damaged, unread, judged.recipe.input.tolerate)
    for trouble in found:
        err.print(trouble, markup=False)
    return summary.EXIT_DAMAGED if found else summary.EXIT_DONE


def _tell(end: ShardEnds) -> None:
    if end.error is not None:
        err.print(f"not read: {end.error}", markup=False)
    elif end.damage is not None:
        err.print(f"{end.shard.name}: damaged: {end.damage.detail}", markup=False)


def _note(name: str, **facts: Any) -> None:
    if name == "checked":
        warn_of_strangers(facts)


def warn_of_strangers(findings: Mapping[str, Any]) -> None:
    """Say it loudly where a judge is asked about pairs that it knows nothing of."""
    from wdsfilter.panel import strangers

    for sentence in strangers(findings):
        err.rule(style="bold red")
        err.print(f"WARNING: {sentence}", style="bold red", markup=False)
        err.rule(style="bold red")
