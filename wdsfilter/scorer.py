"""Asking a judge about a batch, and finding out who is to blame when it fails: a pair, or the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

from wdsfilter.errors import JudgeError, Stopped
from wdsfilter.judges import Judge, Launching
from wdsfilter.samples import Numbers

Note: TypeAlias = Callable[..., None]
"""Called with the name of something that happened, and its facts: for logs, never for results."""

_Answers: TypeAlias = Callable[[], Sequence[Numbers]]

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
        return self._outcomes(values, partial(self.judge.score, values))

    @property
    def ahead(self) -> int:
        """Batches that the judge is given before it is asked for an earlier one's outcomes."""
        return self.judge.ahead if isinstance(self.judge, Launching) else 0

    def launch(self, values: Sequence[Any]) -> Callable[[], list[Numbers | Exception]]:
        """:meth:`score`, begun where the judge works ahead: what comes back waits for the outcomes.

        What goes wrong on the way is dealt with then, and raised then.
        """
        if not isinstance(self.judge, Launching) or not self.judge.ahead:
            return partial(self.score, values)
        try:
            answers = self.judge.launch(values)
        except Exception as error:
            answers = partial(_raise, error.with_traceback(None))  # its frames hold what filled the memory
        return partial(self._outcomes, values, answers)

    def _outcomes(self, values: Sequence[Any], answers: _Answers) -> list[Numbers | Exception]:
        try:
            return [*self._ask(values, answers)]
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
                # what failed may have been a matter of the moment
                return next(iter(self._ask([value], partial(self.judge.score, [value]))))
            except Exception as again:
                return again
        self._failed += 1
        if self._failed >= _FAILURES:
            raise JudgeError(f"judge {self.judge_id} fails on every pair: {error!r}") from error
        return error

    def _ask(self, values: Sequence[Any], answers: _Answers) -> Sequence[Numbers]:
        numbers = answers()
        if len(numbers) != len(values):
            raise JudgeError(f"judge {self.judge_id} gave {len(numbers)} answers to {len(values)} pairs")
        if self._sound is _NONE:
            self._sound = values[0]
        return numbers


def _raise(error: Exception) -> NoReturn:
    raise error
