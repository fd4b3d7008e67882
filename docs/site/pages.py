"""Pages of the site that no file of docs/ has, as a hook of MkDocs.

The home page is the README; what else lies in the root is taken as it is, too. The reference is
made from docstrings and from the help texts of the command line.
"""

from __future__ import annotations

import importlib
import inspect
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import click
import docstrings  # noqa: F401  # MkDocs has this folder in the path now, not for reference.py
import notebook
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from addergraph.cli.main import commands

ROOT = Path(__file__).parents[2]
TAKEN = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
# Page: the package whose public names it shows, and others that belong to it.
REFERENCE = {
    "addergraph": (
        "addergraph",
        ["compiler.certify", "codegen.run.jit.Program", "torch.layer.Adder2d"],
    ),
    "model": ("addergraph.model", ["model.Model\n    options: {inherited_members: true}"]),
    "layers": ("addergraph.layers", []),
    "ops": ("addergraph.ops", []),
    "data": ("addergraph.data", ["data.images.read_image", "data.images.bring"]),
    "training": (
        "addergraph.training",
        ["training.optimizers.Optimizer", "training.schedules.Schedule", "training.step.TrainStep"],
    ),
    "zoo": ("addergraph.zoo", []),
    "quantization": (
        "addergraph.quantization",
        ["model.clipping.ActivationBounds"],
    ),
    "verification": (
        "addergraph.verification",
        [
            "verification.outputs.Report",
            "verification.reference.OutputReport",
            "verification.layers.LayerReport",
            "verification.layers.LayerRow",
        ],
    ),
    "diagnostics": ("addergraph.diagnostics", ["diagnostics.pictures.save", "diagnostics.plots"]),
    "errors": ("addergraph.errors", []),
}
NO_HEADING = "{members: false, show_root_heading: false, show_root_toc_entry: false}"
WITHOUT_LIST = "---\nhide: [navigation]\n---\n"
NAMED = re.compile(r"\[(?:docs/)?(\w+\.md)\]\(\s*(\w+\.md)")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for uri, content in pages():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, files: Files, **kwargs: Any) -> str:
    """A link whose text is the name of a page gets its title."""

    def titled(link: re.Match[str]) -> str:
        found = files.get_file_from_path(link[1])
        return link[0] if found is None or found.page is None else f"[{found.page.title}]({link[2]}"

    return NAMED.sub(titled, markdown)


def pages() -> Iterator[tuple[str, str | bytes]]:
    for source, uri in TAKEN.items():
        text = LINK.sub(_moved, (ROOT / source).read_text())
        yield uri, WITHOUT_LIST + text if source == "README.md" else text
    yield from notebook.pages(ROOT / "examples" / "deck.py")
    yield "commands.md", _commands()
    for page, (package, others) in REFERENCE.items():
        yield f"api/{page}.md", _reference(package, others)


def _moved(link: re.Match[str]) -> str:
    """A link of a file in the root, as the pages of docs/ have it."""
    path, anchor, name = link[1].partition("#")
    path = TAKEN.get(path, posixpath.relpath(path, "docs"))
    return f"]({path}{anchor}{name})"


def _reference(package: str, others: Sequence[str]) -> str:
    """The text of the package itself, then its classes and functions by name."""
    blocks = [f"# {package}", f"::: {package}\n    options: {NO_HEADING}"]
    blocks += [f"::: {name}" for name in _public(package)]
    return "\n\n".join([*blocks, *(f"::: addergraph.{name}" for name in others)])


def _public(package: str) -> Iterator[str]:
    """Where the classes and functions of `__all__` are defined; Model has a page of its own."""
    module = importlib.import_module(package)
    for name in sorted(getattr(module, "__all__", vars(module)), key=str.lower):
        item = inspect.unwrap(getattr(module, name))
        if not isinstance(item, type | FunctionType) or name != item.__name__ or name == "Model":
            continue
        if item.__module__.startswith("addergraph"):
            yield f"{item.__module__}.{name}"


def _commands() -> str:
    """Every help text."""
    parent = click.Context(commands, info_name="addergraph", **commands.context_settings)
    lines = ["# Commands", "", _help(commands, parent)]
    for name, command in commands.commands.items():
        context = click.Context(command, parent, info_name=name, **command.context_settings)
        lines += [f"## {name}", "", _help(command, context)]
    return "\n".join(lines)


def _help(command: click.Command, context: click.Context) -> str:
    return f"```text\n{command.get_help(context)}\n```\n"
