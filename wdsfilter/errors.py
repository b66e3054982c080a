"""Every error that wdsfilter raises on purpose.

    WdsfilterError
    ├── UserError             somebody can put it right: one line on stderr, exit code 1
    │   ├── RecipeError       a recipe says something that it cannot mean (all mistakes at once)
    │   ├── InputError        no shard matches, a shard list contradicts itself, ...
    │   ├── OutputError       the output folder belongs to another run, or cannot be written safely
    │   │   └── StoreError    the object store that it lies in does not answer; an OSError, too
    │   ├── QuestionError     a selection asks for what ledgers cannot answer
    │   ├── JudgeError        a judge cannot be loaded, or fails its check
    │   └── MissingExtra      an optional dependency is not installed
    ├── ReadError             bytes could not be had (transport, disk): nothing is committed, try again
    ├── BadImage              an image that must not or cannot be decoded: costs its sample
    ├── BadCaption            a caption that cannot be read as text: costs its sample
    └── Stopped               the run ends before its work does
        ├── Interrupted       by Ctrl-C or SIGTERM: exit code 75, run again
        └── GuardTripped      by the recipe's guard: exit code 4

Damage in the data is not an error: it is a value (:class:`wdsfilter.samples.Unreadable`,
:class:`wdsfilter.samples.Damage`) that is counted.
"""

from __future__ import annotations


class WdsfilterError(Exception):
    """Root of the tree."""


class UserError(WdsfilterError):
    """Something that a user can put right. The message says what was found and what is accepted."""


class RecipeError(UserError):
    """A recipe, or an override of it, is not valid."""


class InputError(UserError):
    """The input shards cannot be listed, or their names collide."""


class OutputError(UserError):
    """The output folder belongs to another run, or cannot be written safely."""


class StoreError(OutputError, OSError):
    """The object store that a folder lies in cannot be asked now. Says nothing about what is there."""


class QuestionError(UserError):
    """A selection asks for what the ledgers cannot answer, or what is no question to them."""


class JudgeError(UserError):
    """A judge cannot be loaded, or its check on the first samples failed."""


class MissingExtra(UserError):
    """An optional dependency is missing. The message holds the command that installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra that is not installed: pip install 'wdsfilter[{extra}]'")


class ReadError(WdsfilterError):
    """Bytes of a shard could not be had. Says nothing about the bytes: nothing is committed."""


class BadImage(WdsfilterError):
    """An image that must not or cannot be decoded.

    ``reason`` is a short code for the ledger (``image_format``, ``image_too_large``,
    ``image_truncated``, ...), ``detail`` a phrase for people.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class BadCaption(WdsfilterError):
    """A caption that cannot be read as text. ``reason`` and ``detail`` as in :class:`BadImage`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Stopped(WdsfilterError):
    """The run ends before its work does. What is committed stays; run again to go on."""


class Interrupted(Stopped):
    """Ctrl-C or SIGTERM."""


class GuardTripped(Stopped):
    """The recipe's guard found something off."""
