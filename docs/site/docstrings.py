"""Docstrings as Markdown: docstrings here are written to be read in a terminal.

A block of lines `name  meaning` becomes a table; another indented block, and a first line that is
an equation, stay as they are, in a fixed pitch. In the rest nothing is markup but `code`, lists and
the names of pages, which become links.
"""

from __future__ import annotations

import re
import textwrap

NAME = re.compile(r"\(?[A-Za-z_][\w/<>*., ()-]*")
EQUATION = re.compile(r"[\w(]+(\[[^]]*\])?\)?(, \w+)* = ")
PAGE = re.compile(r"\bdocs/(\w+)\.md\b")
WIDEST = 24  # letters of a name in a table


def markdown(docstring: str) -> str:
    """The docstring, block by block."""
    blocks = re.split(r"\n\s*\n", docstring.strip("\n"))
    if EQUATION.match(blocks[0]):
        return "\n\n".join([_preformatted(blocks[0]), *map(_block, blocks[1:])])
    return "\n\n".join(map(_block, blocks))


def _block(block: str) -> str:
    lines = textwrap.dedent(block).splitlines()
    rows = _rows(lines)
    if rows:
        cells = (
            f"| `{name}` | {_prose(meaning).replace('|', chr(92) + '|')} |"
            for name, meaning in rows
        )
        return "\n".join(["| | |", "|---|---|", *cells])
    indented = all(line.startswith("    ") for line in block.splitlines())
    return _preformatted(block) if indented else _prose(block)


def _rows(lines: list[str]) -> list[tuple[str, str]]:
    """Names and meanings; none where the block is no table."""
    column = _column(lines)
    rows: list[tuple[str, str]] = []
    for line in lines:
        if line.startswith("  "):
            if not rows:
                return []
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
            continue
        found = re.match(r"(\S+(?: \S+)*?) {2,}(\S.*)", line)
        name, meaning = found.groups() if found else (line[:column].rstrip(), line[column:])
        cut = found or (line[column - 1 : column] == " " and line[column : column + 1].strip())
        if not cut or len(name) > WIDEST or not NAME.fullmatch(name) or meaning.startswith("#"):
            return []
        rows.append((name, meaning))
    return rows


def _column(lines: list[str]) -> int:
    """Where most meanings start."""
    starts = [found.end() for line in lines if (found := re.match(r"\S.*?\S {2,}(?=\S)", line))]
    return max(starts, key=starts.count, default=0)


def _preformatted(block: str) -> str:
    return f"```text\n{textwrap.dedent(block)}\n```"


def _prose(block: str) -> str:
    parts = re.split(r"(`[^`]*`)", block)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    """Without letters that Markdown would take for markup, but for the stars of a list."""
    text = re.sub(r"[<>]", lambda found: {"<": "&lt;", ">": "&gt;"}[found[0]], text)
    text = re.sub(r"(?<!^)\*|\*(?! )", r"\\*", text, flags=re.MULTILINE)
    return PAGE.sub(r"[\1](../\1.md)", re.sub(r"\b_|_\b", r"\\_", text))
