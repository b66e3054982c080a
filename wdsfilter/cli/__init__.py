"""The commands, and every word printed to a person: one file in this folder is one group of commands.

A user's mistake is one line (or one list) on stderr and exit code 1; a bug keeps its traceback.

A command's module (:class:`CommandModule`) puts its functions into the application that it is given,
and imports what they need when they run, so that ``--help`` is quick. To add a command, add a file:
there is no list to edit. Here is what all of them share.
"""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated, Any, BinaryIO, Protocol

import typer
from rich.console import Console

import wdsfilter
from wdsfilter import launch
from wdsfilter.errors import UserError, WdsfilterError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

RecipeArgument = Annotated[
    str, typer.Argument(help="Name of a recipe that comes with wdsfilter, or path of a .yaml file.")
]
FolderArgument = Annotated[str, typer.Argument(help="Output folder of a run or a selection; a URL, too.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a key: judges.vlm.at_least.grade=8"),
]
ShardsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--shards", help="Path, URL, folder, glob or brace pattern of the input shards; - for standard input."
    ),
]


class CommandModule(Protocol):
    """What a file in this folder provides, unless its name begins with an underscore.

    ``PLACE`` says where it stands in ``--help``: lowest first.
    """

    PLACE: int

    def register(self, app: typer.Typer) -> None:
        """Put the module's commands into ``app``."""
        ...


@cache
def application() -> typer.Typer:
    """The command line, made of all files of this folder."""
    app = typer.Typer(
        help=wdsfilter.__doc__,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for module in sorted(_modules(), key=lambda module: module.PLACE):
        module.register(app)
    return app


def _modules() -> list[CommandModule]:
    found: list[Any] = [
        importlib.import_module(f"{__name__}.{module.name}")
        for module in pkgutil.iter_modules(__path__)
        if not module.name.startswith("_")
    ]
    return found


@contextmanager
def tar_output() -> Iterator[BinaryIO]:
    """Standard output for a tar: whatever else is printed meanwhile goes to stderr.

    Raises BrokenPipeError where nobody reads on, UserError on a terminal.
    """
    if sys.stdout.isatty():
        raise UserError("a tar is not written to a terminal; send it to a file or a command")
    sys.stdout.flush()
    number = sys.stdout.fileno()
    with os.fdopen(os.dup(number), "wb") as file:
        os.dup2(sys.stderr.fileno(), number)
        try:
            yield file
        finally:
            os.dup2(file.fileno(), number)


_USERS_TO_SOLVE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        application()(args=list(argv) if argv is not None else None)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except WdsfilterError as error:
        complain(error)
        return 1
    except OSError as error:
        if error.errno not in _USERS_TO_SOLVE:
            raise
        complain(error)
        return 1
    return 0


def complain(error: Exception) -> None:
    """Tell a user's mistake in one line on stderr; a rank other than the first says which it is."""
    where = launch.place()
    prefix = f"wdsfilter (rank {where.rank}): " if where.rank else "wdsfilter: "
    err.print(f"{prefix}{error}", markup=False)
