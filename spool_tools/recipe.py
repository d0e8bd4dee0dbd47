"""Prints a recipe for a server that receives events.

examples:
  spool-tools recipe
  spool-tools recipe clickhouse | clickhouse-client --multiquery
exit codes: 0 fine; 2 there is no such recipe
"""

from __future__ import annotations

import argparse
from importlib import resources

from spool_tools.target import WrongUsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="which; without it they are listed")


def run(args: argparse.Namespace) -> int:
    recipes = texts()
    if args.name is None:
        for name, text in recipes.items():
            print(f"{name:<20}{text.splitlines()[0].strip('-# ')}")
        return 0
    if args.name not in recipes:
        raise WrongUsageError(
            f"there is no recipe {args.name!r}; there are {', '.join(recipes)}"
        )
    print(recipes[args.name], end="")
    return 0


def texts() -> dict[str, str]:
    """Every recipe by its name, in their order; its first line says what it is for."""
    files = resources.files("spool_tools.recipes").iterdir()
    recipes = (each for each in files if each.is_file() and each.name[-3:] != ".py")
    return dict(
        sorted((each.name.split(".")[0], each.read_text("utf-8")) for each in recipes)
    )
