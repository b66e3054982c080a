"""Finding a recipe by name or path, reading it, overriding its keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from wdsfilter import recipe_errors
from wdsfilter.errors import RecipeError
from wdsfilter.recipe import Recipe, listed_judges, parse


def recipe_folder() -> Path:
    """Where the recipes that come with wdsfilter are."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with wdsfilter."""
    folder = recipe_folder()
    return sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe, given by path or by name. Raises RecipeError."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise RecipeError(f"no recipe file {name}")
        return path
    if name not in recipe_names():
        raise RecipeError(
            f"no recipe {name!r}{recipe_errors.nearest(name, recipe_names())}; or give the path of a .yaml file"
        )
    return recipe_folder() / f"{name}.yaml"


def load_recipe(name: str, overrides: Iterable[str] = (), shards: Sequence[str] = ()) -> Recipe:
    """The recipe ``name`` (path or name) with ``PATH=VALUE`` overrides applied in order.

    ``shards``, where there are any, take the place of its own. Raises RecipeError.
    """
    given = [f"input.shards={json.dumps(list(shards))}"] if shards else []
    raw = read_recipe(name, [*overrides, *given])
    if is_train(raw):
        raise RecipeError(f"{name} is a train recipe: wdsfilter train {name} --output FOLDER")
    return parse(raw, origin=str(name))


def is_train(raw: object) -> bool:
    """Whether a recipe's content is that of a train recipe: it has a section ``training``."""
    return isinstance(raw, dict) and "training" in raw


def read_recipe(name: str, overrides: Iterable[str] = ()) -> Any:
    """The content of the recipe ``name``, not validated, with overrides applied. Raises RecipeError."""
    path = find_recipe(name)
    try:
        raw = read_yaml(path.read_bytes())
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: {' '.join(str(error).split())}") from error
    for override in overrides:
        _apply(raw, override)
    return raw


def read_yaml(text: str | bytes) -> Any:
    """The content of a recipe or of a part of one. Raises yaml.YAMLError."""
    return yaml.load(text, Loader=_StrictLoader)


class _StrictLoader(yaml.SafeLoader):
    """YAML without tags that construct objects, and without keys that silently replace others.

    ``2e-3`` is a number, as in YAML 1.2 and unlike in PyYAML.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands there twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), [*"-+.0123456789"]
)


def _apply(raw: Any, override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set {override}: expected PATH=VALUE, such as judges.vlm.at_least.grade=8")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {override}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        return  # parse() says what is wrong with it
    parts = path.split(".")
    where: Any = raw
    if parts[0] == "judges" and len(parts) > 1:
        options = _judge_options(raw, parts[1], override)
        if len(parts) == 2:  # all of its options at once
            if not isinstance(value, dict):
                raise RecipeError(f"--set {override}: expected the judge's options, such as {{min_words: 3}}")
            options.clear()
            options.update(value)
            return
        where, parts = options, parts[2:]
    for part in parts[:-1]:
        if not isinstance(where.get(part), dict):
            where[part] = {}
        where = where[part]
    where[parts[-1]] = value


def _judge_options(raw: dict[str, Any], wanted: str, override: str) -> dict[str, Any]:
    ids: list[str] = []
    listed = raw["judges"] = listed_judges(raw.get("judges", []))
    for entry in listed:
        if not isinstance(entry, dict) or len(entry) != 1:
            continue
        ((name, options),) = entry.items()
        if not isinstance(options, dict):
            options = entry[name] = {}
        ids.append(str(options.get("id") or name))
        if ids[-1] == wanted:
            return options
    raise RecipeError(
        f"--set {override}: this recipe has no judge {wanted!r}, only {', '.join(ids) or 'none'}"
    )
