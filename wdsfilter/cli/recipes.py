"""Recipes: which there are, what they say, whether they are valid."""

from __future__ import annotations

import sys

import typer
from rich.table import Table
from rich.text import Text

from wdsfilter.cli import RecipeArgument, SetOption, out

PLACE = 90


def register(app: typer.Typer) -> None:
    """The commands below ``recipes``: ``list``, ``show`` and ``check``."""
    recipes = typer.Typer(help="The recipes that come with wdsfilter, and your own.", no_args_is_help=True)
    recipes.command("list")(list_recipes)
    recipes.command("show")(show_recipe)
    recipes.command("check")(check_recipe)
    app.add_typer(recipes, name="recipes")


def list_recipes() -> None:
    """Names and purposes of the recipes that come with wdsfilter."""
    from wdsfilter.recipe_files import find_recipe, recipe_names

    table = Table(box=None, show_header=False, pad_edge=False)
    for name in recipe_names():
        purpose = find_recipe(name).read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        table.add_row(Text(name), Text(purpose))
    out.print(table)


def show_recipe(recipe: RecipeArgument) -> None:
    """Print a recipe, to read it or to start one's own from it."""
    from wdsfilter.recipe_files import find_recipe

    sys.stdout.write(find_recipe(recipe).read_text(encoding="utf-8"))


def check_recipe(recipe: RecipeArgument, overrides: SetOption = None) -> None:
    """Validate a recipe and its overrides; all mistakes at once. Loads no model and looks for no shard."""
    from wdsfilter.recipe_files import is_train, load_recipe, read_recipe

    if is_train(read_recipe(recipe, overrides or [])):
        from wdsfilter.training.recipe import load_train_recipe

        load_train_recipe(recipe, overrides or [])
        out.print(f"{recipe}: valid; a train recipe", markup=False)
        return
    checked = load_recipe(recipe, overrides or [])
    out.print(f"{recipe}: valid; judges: {', '.join(checked.judge_ids)}", markup=False)
