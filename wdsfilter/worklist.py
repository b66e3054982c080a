"""Which shards this process works on: it takes what nobody has, and leaves nothing behind.

No process waits for another: what is held by a living process is left to it. At the end a process
looks at the claims of others just long enough to see whether their owners are alive.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence

from wdsfilter.claims import Claims
from wdsfilter.commit import is_complete, rebuild
from wdsfilter.errors import ReadError
from wdsfilter.output import OutputFolder
from wdsfilter.recipe import Recipe
from wdsfilter.shards.source import Shard

_FIRST_PAUSE = 1.0
_FIRST_LOOK, _LOOK = 0.02, 0.25  # seconds between looks at what others do: most are about to end


class Worklist:
    """The shards of a run in their seeded order, and what became of them."""

    def __init__(
        self,
        shards: Sequence[Shard],
        folder: OutputFolder,
        recipe: Recipe,
        claims: Claims,
        pause: Callable[[float], None],
        note: Callable[..., None],
    ) -> None:
        self.unread: dict[str, ReadError] = {}
        self._shards = shards
        self._folder = folder
        self._recipe = recipe
        self._claims = claims
        self._pause = pause
        self._note = note
        self._done: set[str] = set()
        self._attempts: dict[str, int] = {}
        self._in_hand: set[str] = set()

    def round(self) -> Iterator[Shard]:
        """Claims and yields, one by one, every shard that is to be judged and can be had now.

        Shards whose ledger is there without its shard are rebuilt on the way.
        """
        for shard in self._open():
            if self._attempts.get(shard.name, 0) >= self._recipe.run.read_attempts:
                continue
            if not self._claims.take(shard.name):
                continue
            if not self._folder.ledger(shard.name).exists():
                self._in_hand.add(shard.name)
                yield shard
                continue
            # Somebody committed it between our look and our claim, or died before its shard was there.
            try:
                if not is_complete(self._folder, shard.name):
                    rebuild(self._folder, shard, self._recipe)
            except ReadError as error:
                self.failed(shard, error)
            else:
                self._claims.release(shard.name)

    def committed(self, shard: Shard) -> None:
        self._done.add(shard.name)
        self._in_hand.discard(shard.name)
        self.unread.pop(shard.name, None)
        self._claims.release(shard.name)

    def failed(self, shard: Shard, error: ReadError) -> None:
        """The shard could not be read: it is tried again in a later round, a few times."""
        self._note("read_failed", shard=shard.name, error=str(error))
        self._attempts[shard.name] = self._attempts.get(shard.name, 0) + 1
        if self._attempts[shard.name] >= self._recipe.run.read_attempts:
            self._note("gave_up", shard=shard.name, error=str(error))
        self._in_hand.discard(shard.name)
        self.unread[shard.name] = error
        self._claims.release(shard.name)

    def another_round(self) -> bool:
        """After a round: whether there is, or soon will be, something left to do for this process."""
        attempts = [self._attempts.get(shard.name, 0) for shard in self._open()]
        again = [a for a in attempts if 0 < a < self._recipe.run.read_attempts]
        if again:
            longest = _FIRST_PAUSE * 4.0 ** (min(again) - 1)
            self._pause(longest * random.uniform(0.5, 1.0))  # drawn, so that processes do not return together
            return True
        return self._somebody_died()

    def _open(self) -> Iterator[Shard]:
        for shard in self._shards:
            if shard.name in self._done or shard.name in self._in_hand:
                continue
            if self._folder.ledger(shard.name).exists() and is_complete(self._folder, shard.name):
                self._done.add(shard.name)
                self.unread.pop(shard.name, None)
            else:
                yield shard

    def _somebody_died(self) -> bool:
        """Watch the claims of others until each has moved or is gone; True when one is free to take."""
        watched = {s.name: self._claims.beat(s.name) for s in self._open() if s.name not in self.unread}
        deadline = time.monotonic() + 1.5 * self._claims.stale_after
        pause = _FIRST_LOOK
        while watched and time.monotonic() < deadline:
            for name, beat in list(watched.items()):
                ledger = self._folder.ledger(name)
                if ledger.exists() and is_complete(self._folder, name):
                    del watched[name]
                elif self._claims.is_free(name):
                    return True
                elif (sign := self._claims.beat(name)) != beat and sign[0] is not None:
                    del watched[name]
            if watched:
                self._pause(pause)
                pause = min(1.5 * pause, _LOOK)
        return False
