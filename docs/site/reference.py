"""What mkdocstrings reads of the code, for griffe: docstrings as Markdown."""

from __future__ import annotations

from typing import Any

import griffe
from docstrings import markdown  # pages.py has loaded it


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
