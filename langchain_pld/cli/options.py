"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from langchain_pld.errors import InputError

if TYPE_CHECKING:
    from langchain_pld.examples import Columns

__all__ = [
    "ArtifactFile",
    "GroupColumn",
    "IdColumn",
    "Json",
    "LabelColumn",
    "SkipBadRows",
    "StudentModel",
    "TextColumn",
    "check_writable",
    "columns",
]

ArtifactFile = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A *.pld.json file.", show_default=False)]
TextColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column with the text.", show_default="text")]
LabelColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column with the label.", show_default="label")]
IdColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column with the row's id.", show_default="id")]
GroupColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column that says which rows belong together.", show_default="group")
]
StudentModel = Annotated[
    str | None, typer.Option(metavar="MODEL", help="As provider:name.", show_default="the artifact's own student")
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave bad rows out instead of stopping.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def columns(**names: str | None) -> Columns:
    """The names that were given; the default ones for the others."""
    from langchain_pld.examples import Columns

    return Columns(**{role: name for role, name in names.items() if name is not None})


def check_writable(out: Path) -> None:
    """Find out before any work whether a file can be written.

    Raises:
        InputError: It cannot.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder; give a file name")
    # Missing folders are made, inside the nearest one that is there.
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"cannot write into {folder}")
