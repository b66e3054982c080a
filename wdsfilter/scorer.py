"""Asking a judge about a batch, and finding out who is to blame when it fails: a pair, or the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from wdsfilter.errors import JudgeError, Stopped
from wdsfilter.judges import Judge
from wdsfilter.samples import Numbers

Note: TypeAlias = Callable[..., None]
"""Called with the name of something that happened, and its facts: for logs, never for results."""

_FAILURES = 8
_NONE = object()


@dataclass(slots=True)
class Scorer:
    """A judge, and what is known of its health over a whole run.

    A pair is blamed only while the judge still answers about a pair that it answered before: what
    broke the judge itself (a lost device, say) must never be committed as a fact about a sample.
    """

    judge_id: str
    judge: Judge
    note: Note
    _sound: Any = _NONE
    _failed: int = 0

    def score(self, values: Sequence[Any]) -> list[Numbers | Exception]:
        """Numbers for each value, or why there are none.

        A batch that fails is halved, until what fails is one value alone. Raises JudgeError when
        the judge is broken.
        """
        try:
            return [*self._ask(values)]
        except (Stopped, JudgeError):
            raise
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold what filled the memory
        if len(values) > 1:
            self.note("batch_halved", judge=self.judge_id, pairs=len(values), error=repr(failure)[:500])
            half = len(values) // 2
            return self.score(values[:half]) + self.score(values[half:])
        return [self._blame(values[0], failure)]

    def shard_ends(self) -> None:
        """Raise JudgeError where a shard is about to be committed, and the judge has only failed so far."""
        if self._failed and self._sound is _NONE:
            raise JudgeError(f"judge {self.judge_id} failed on every pair of a run's first shard")

    def _blame(self, value: Any, error: Exception) -> Numbers | Exception:
        if self._sound is not _NONE:
            try:
                self.judge.score([self._sound])
            except Exception as broken:
                raise JudgeError(
                    f"judge {self.judge_id} has stopped working, it fails on a pair that it knew: {broken!r}"
                ) from broken
            try:
                return next(iter(self._ask([value])))  # what failed may have been a matter of the moment
            except Exception as again:
                return again
        self._failed += 1
        if self._failed >= _FAILURES:
            raise JudgeError(f"judge {self.judge_id} fails on every pair: {error!r}") from error
        return error

    def _ask(self, values: Sequence[Any]) -> Sequence[Numbers]:
        numbers = self.judge.score(values)
        if len(numbers) != len(values):
            raise JudgeError(f"judge {self.judge_id} gave {len(numbers)} answers to {len(values)} pairs")
        if self._sound is _NONE:
            self._sound = values[0]
        return numbers
