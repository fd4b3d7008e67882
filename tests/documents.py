"""The code blocks of a document."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent


def blocks(file: str) -> list[tuple[str, str]]:
    """Language and code of each block of a Markdown file, in order."""
    text = (ROOT / file).read_text()
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def python_blocks(file: str) -> list[str]:
    return [code for language, code in blocks(file) if language == "python"]


def shell_commands(file: str) -> list[list[str]]:
    """The words of each command of its shell blocks, up to a comment."""
    return words_of("".join(code for language, code in blocks(file) if language == "sh"))


def words_of(code: str) -> list[list[str]]:
    """The words of each command of a shell block."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]
