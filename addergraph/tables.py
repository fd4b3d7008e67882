"""Tables of text: for the terminal, and for documents in Markdown."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

WIDTH = 1000  # of the console: a table is as wide as its cells, and never cut
FOLDED = 80  # columns of a table one of whose columns is folded


@dataclass(frozen=True)
class Table:
    """Rows of cells under `heads`; a row may be shorter. A head of several lines is one line in
    documents.

    words    the columns, by their heads, that stand to the left; all others hold numbers
    footer   a last row under a line, where there is one
    ruled    numbers of rows that a line follows
    folds    the column, by its head, whose words go on in the next line where a terminal has no
             room for more
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[str]
    footer: Sequence[str] = ()
    ruled: Collection[int] = ()
    folds: str = ""

    def lines(self) -> list[str]:
        """For the terminal."""
        from rich import box
        from rich.console import Console
        from rich.table import Table as Drawn

        table = Drawn(
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_edge=False,
            show_footer=bool(self.footer),
        )
        for name, footer in zip(self.heads, self.footer or [""] * len(self.heads), strict=True):
            justify: Literal["left", "right"] = "left" if name in self.words else "right"
            whole = name != self.folds
            table.add_column(name, footer=footer, justify=justify, no_wrap=whole)
        for number, row in enumerate(self.rows):
            table.add_row(*row, end_section=number in self.ruled)
        text = io.StringIO()
        plain: dict[str, Any] = {
            "markup": False,
            "emoji": False,
            "highlight": False,
            "color_system": None,
        }
        width = FOLDED if self.folds else WIDTH
        Console(file=text, width=width, **plain).print(table)
        return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]

    def markdown(self) -> list[str]:
        """For a document."""
        rule = ["---" if name in self.words else "---:" for name in self.heads]
        return [f"| {' | '.join(cells)} |" for cells in (self.titles(), rule, *self.rows)]

    def titles(self) -> list[str]:
        """The heads, each in one line."""
        return [" ".join(name.split("\n")).strip() for name in self.heads]


def printable(text: str) -> str:
    """`text` for a terminal: what would act on it, as escapes and line breaks do, is spelled."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def columns(text: str) -> int:
    """How many of a terminal `text` takes: two for many letters of East Asia."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """`text` with spaces behind it, to so many columns."""
    return text + " " * (width - columns(text))


def shortened(text: str, most: int) -> str:
    """`text`, of which the end is left out where it takes more than `most` columns."""
    from rich.cells import set_cell_size

    return text if columns(text) <= most else set_cell_size(text, most - 2) + ".."
