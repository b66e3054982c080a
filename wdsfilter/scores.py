"""What the filter adds to a kept sample: its scores, as JSON made of its ledger row and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from wdsfilter.recipe import Output
from wdsfilter.samples import Member, Sample

FIELD = "wdsfilter"
_encoded = json.JSONEncoder(ensure_ascii=False).encode


def taken(sample: Sample, fields: Mapping[str, Any], output: Output) -> str | None:
    """Why the sample has no room for its scores, and the way out; ``fields`` are its .json's."""
    if output.scores == "json" and FIELD in fields:
        return (
            f"has a field {FIELD!r} in its .json already (was it filtered before?); "
            "write the scores beside it with --set output.scores=member"
        )
    if output.scores == "member" and sample.first((output.score_extension,)) is not None:
        return (
            f"has a member .{output.score_extension} already (was it filtered before?); "
            "name the new one with --set output.score_extension=score2.json"
        )
    return None


def with_scores(
    sample: Sample, row: Mapping[str, Any], judge_ids: Sequence[str], output: Output
) -> list[Member]:
    """The members of the kept sample as they are to be written."""
    members = list(sample.members)
    if output.scores == "none":
        return members
    if output.scores == "member":
        return [*members, score_member(sample.key, row, judge_ids, output)]
    scores = score_json(row, judge_ids)
    for position, member in enumerate(members):
        if member.extension == "json":
            members[position] = Member(member.name, "json", _merged(bytes(member.data), scores))
            return members
    return [*members, Member(f"{sample.key}.json", "json", f'{{"{FIELD}": {scores}}}\n'.encode())]


def score_member(key: str, row: Mapping[str, Any], judge_ids: Sequence[str], output: Output) -> Member:
    """The member that a sample has more than its input."""
    extension = output.score_extension
    return Member(f"{key}.{extension}", extension, score_json(row, judge_ids).encode() + b"\n")


def score_json(row: Mapping[str, Any], judge_ids: Sequence[str]) -> str:
    """What every judge that was reached measured, as one JSON object."""
    return _encoded({i: _plain(row[i]) for i in judge_ids if row.get(i) is not None})


def _plain(value: Any) -> Any:
    """float32 values in a short spelling (0.1, not 0.10000000149011612), names sorted, nulls left out."""
    kind = type(value)
    if kind is float:
        return float(f"{value:.7g}")
    if kind is dict:
        return {name: _plain(item) for name, item in sorted(value.items()) if item is not None}
    return [_plain(item) for item in value] if kind is list else value


def _merged(data: bytes, scores: str) -> bytes:
    """The .json object with one field more at its end and every other byte as it was."""
    body = data.rstrip()
    separator = b", " if json.loads(data.decode("utf-8-sig")) else b""
    return body[:-1] + separator + f'"{FIELD}": {scores}'.encode() + b"}" + data[len(body) :]
