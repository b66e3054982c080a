"""What makes two runs the same run: how they score, how they decide, what they write.

The record says it in full, so that a difference can be shown; it holds no path of a machine and no
time, so that every process of a run writes the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from wdsfilter import judges
from wdsfilter.judges import Runtime, is_deciding, is_location, is_rejecting
from wdsfilter.recipe import JudgeSpec, Recipe

FORMAT = 1
"""Version of the output tree; and of everything in it that is ours and is not a judge's."""

Record = dict[str, Any]


def record(recipe: Recipe, runtime: Runtime) -> Record:
    """The content of ``run.json``. May read a judge's weights, to know them again. Raises JudgeError."""
    scoring = {
        "input": {
            "image": recipe.input.image,
            "caption": recipe.input.caption,
            "max_sample": recipe.input.max_sample,
        },
        "order": list(recipe.judge_ids),
        "judges": {spec.id: _measuring(spec, runtime) for spec in recipe.judges},
    }
    decision = {"judges": {spec.id: _options(spec, deciding=True) for spec in recipe.judges}}
    output = {
        **recipe.output.model_dump(mode="json", exclude={"folder"}),
        "ledger": recipe.ledger.model_dump(mode="json", exclude_none=True),
    }
    parts = {"scoring": scoring, "decision": decision, "output": output}
    return {
        "wdsfilter": {"format": FORMAT},
        **parts,
        "fingerprints": {name: digest(part) for name, part in parts.items()},
    }


def without_shards(record: Record) -> Record:
    """The record of the same run, had it written ledgers only."""
    output = {**record["output"], "shards": False}
    fingerprints = {**record["fingerprints"], "output": digest(output)}
    return {**record, "output": output, "fingerprints": fingerprints}


def recorded_specs(record: Record) -> Iterator[JudgeSpec]:
    """The judges that a record speaks of, in order, fit for deciding about ledger rows.

    Raises ValueError, KeyError. Where their models lie is not recorded and not needed.
    """
    for judge_id in record["scoring"]["order"]:
        measuring = record["scoring"]["judges"][judge_id]
        module = judges.module(measuring["judge"])
        places = {n: "" for n, f in module.Options.model_fields.items() if is_location(f) and f.is_required()}
        options = {**places, **measuring["options"], **record["decision"]["judges"][judge_id]}
        yield JudgeSpec(measuring["judge"], judge_id, module.Options.model_validate_json(json.dumps(options)))


def recorded_truth(record: Record) -> str | None:
    """The ledger column that holds true scores, where the recipe named one."""
    column: str | None = record["output"]["ledger"].get("truth")
    return column


def judges_of(record: Record) -> dict[str, Any]:
    """Id -> whether the judge decides about samples, and SHA-256 of its model's files, of a record's judges."""
    return {
        name: {
            "decides": any(map(_is_on, _dropping(record, name))),
            "model": record["scoring"]["judges"][name]["identity"].get("model", {}),
        }
        for name in record["scoring"]["order"]
    }


def selection_judges(record: Record) -> dict[str, Any]:
    """What :func:`judges_of` says, of a selection's ``select.json``, by the names of its ledgers' columns.

    Those decided that its expressions name; those of the run, where it asks for what that one kept; and those
    that decided about a selection that it was made of.
    """
    asked = " ".join(filter(None, (record["question"]["where"], record["question"]["by"])))
    return {
        name.replace(".", "_"): {
            **said,
            "decides": bool(re.search(rf"\b{re.escape(name)}\b", asked))
            or (said["decides"] and (not asked or source.get("selected", False))),
        }
        for source in record["sources"]
        for name, said in source["judges"].items()
    }


def _dropping(record: Record, name: str) -> Iterator[object]:
    """Values of the options for which a judge drops samples."""
    yield from record["decision"]["judges"][name].values()
    measuring = record["scoring"]["judges"][name]
    for option, field in judges.module(measuring["judge"]).Options.model_fields.items():
        if is_rejecting(field):
            yield measuring["options"].get(field.alias or option)


def _is_on(value: object) -> bool:
    return value is not None and value is not False and value != [] and value != {}


def canonical(value: object) -> bytes:
    """JSON with one spelling: sorted keys, two spaces, a newline at the end."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def digest(value: object) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of :func:`canonical`."""
    return hashlib.sha256(canonical(value)).hexdigest()[:16]


def differences(
    there: object, here: object, path: str = "", words: tuple[str, str] = ("there", "now")
) -> Iterator[str]:
    """One line for each value that differs: ``judges.vlm.max_pixels: 1003520 there, 401408 now``."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in sorted(there.keys() | here.keys()):
            below = f"{path}.{key}" if path else key
            yield from differences(there.get(key), here.get(key), below, words)
    elif there != here:
        yield f"{path}: {_short(there)} {words[0]}, {_short(here)} {words[1]}"


def _measuring(spec: JudgeSpec, runtime: Runtime) -> Record:
    return {
        "judge": spec.name,
        "options": _options(spec, deciding=False),
        "identity": dict(spec.module.identify(spec.options, runtime)),
    }


def _options(spec: JudgeSpec, *, deciding: bool) -> Record:
    chosen = {
        name
        for name, field in type(spec.options).model_fields.items()
        if is_deciding(field) == deciding and not is_location(field) and name != "id"
    }
    return spec.options.model_dump(mode="json", by_alias=True, include=chosen)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
