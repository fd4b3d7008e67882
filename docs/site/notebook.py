"""A notebook in the form of a Python file (jupytext's percent format), run and made a page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

SECONDS = 1200  # for the longest cell, on a busy machine
QUIET = ["--IPKernelApp.log_level=ERROR"]


def pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """The page, its pictures, and the notebook with all results. A cell that fails is an error."""
    notebook = jupytext.read(path)
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", extra_arguments=QUIET
        )
        client.execute(cwd=folder)
    blocks: list[str] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            blocks.append(cell.source)
            continue
        blocks.append(f"```python\n{cell.source}\n```")
        for result in cell.outputs:
            picture = result.get("data", {}).get("image/png")
            if picture is None:
                blocks.append(f"```text\n{_text(result)}\n```")
                continue
            name = f"{path.stem}-{number}.png"
            blocks.append(f"![]({name})")
            yield name, base64.b64decode(picture)
    blocks.append(f"[This page as a notebook]({path.stem}.ipynb)")
    yield f"{path.stem}.ipynb", nbformat.writes(notebook)
    yield f"{path.stem}.md", "\n\n".join(blocks)


def _text(result: Any) -> str:
    found = result.text if result.output_type == "stream" else result.data["text/plain"]
    return str(found).strip("\n")
