"""Options that tell what the columns of a file are called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from langchain_pld.examples import Columns

__all__ = ["GroupColumn", "IdColumn", "LabelColumn", "TextColumn", "columns"]

TextColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the texts; text when absent.")]
LabelColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the labels; label when absent.")]
IdColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the rows' names; id when absent.")]
GroupColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of what belongs together; group when absent.")
]


def columns(
    *,
    text: str | None = None,
    label: str | None = None,
    id: str | None = None,  # noqa: A002
    group: str | None = None,
) -> Columns:
    """The names that were given, and the usual ones for the others."""
    from langchain_pld.examples import Columns

    given = {"text": text, "label": label, "id": id, "group": group}
    return Columns(**{what: name for what, name in given.items() if name is not None})
