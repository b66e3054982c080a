"""One sample of a run: everything that is known of it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from wdsfilter.cli import FolderArgument, ShardsOption, err, out

PLACE = 36


def register(app: typer.Typer) -> None:
    """The command ``show``."""
    app.command()(show)


def show(
    folder: FolderArgument,
    key: Annotated[str, typer.Argument(help="Key of the sample.")],
    shards: ShardsOption = None,
    picture: Annotated[Path | None, typer.Option(help="Write its picture to this file, made anew.")] = None,
) -> None:
    """Print a sample's ledger row as JSON, one for each shard that has such a key, its caption, and its picture
    where the terminal has the colours for it.

    Caption and picture come from --shards, as given to run; without it from where a run read them, if that is on
    this machine, else only those of a kept sample.
    """
    from wdsfilter.errors import BadImage, UserError
    from wdsfilter.images import decode
    from wdsfilter.output import OutputFolder
    from wdsfilter.report.blocks import in_colour
    from wdsfilter.report.lookup import look_up
    from wdsfilter.whereabouts import input_shards

    inputs = input_shards(OutputFolder(folder), shards)
    found = look_up(OutputFolder(folder), key, inputs)
    if not found:
        raise UserError(f"{folder}: no ledger has the key {key!r}")
    for one in found:
        caption = {} if one.pair is None else {"caption": one.pair.caption}
        typer.echo(json.dumps({"shard": one.shard, **one.row, **caption}, indent=2, ensure_ascii=False))
        if one.pair is not None and err.is_terminal and err.color_system == "truecolor":
            with suppress(BadImage):
                err.print(in_colour(decode(one.pair.image), min(err.width, 64)), soft_wrap=False)
        if one.why:
            err.print(f"{one.shard}: {one.why}", markup=False)
    if picture is not None:
        images = [one.pair.image for one in found if one.pair is not None]
        if len(images) != 1:
            raise UserError(f"--picture needs one sample that can be read, {len(images)} of key {key!r} can")
        kind = "JPEG" if picture.suffix.lower() in (".jpg", ".jpeg") else "PNG"
        decode(images[0]).save(picture, kind)
        out.print(f"wrote {picture}", markup=False)
