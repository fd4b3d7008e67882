"""The house rules: who imports whom, what is packaged, what `import addergraph` costs."""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

import addergraph as ag

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "addergraph": "addergraph",
    "passes": "addergraph.passes",
    "codegen": "addergraph.codegen",
}
HEAVY = {
    "llvmlite", "networkx", "safetensors", "rich", "click", "matplotlib", "filelock", "PIL",
    "torch", "onnx",
}  # fmt: skip
COMPILER = "addergraph/compiler/"
BRIDGE = "addergraph/torch/"  # to PyTorch, whose classes it extends
COMMAND_LINE = {  # imported by the command alone
    "addergraph/cli/main.py", "addergraph/cli/options.py",
}  # fmt: skip

FLOORS = (  # from the ground up: a unit imports units of lower floors, and itself
    ("errors", "memory", "processors"),
    ("border", "habits"),
    ("settings", "stages", "tables"),
    ("display",),
    ("ir",),
    ("ops",),
    ("files", "report.findings"),
    ("data", "layers"),
    ("quantization",),
    ("passes", "codegen"),
    ("compiler",),
    ("report",),
    ("training", "verification"),
    ("model",),
    ("zoo",),
    ("diagnostics", "demo", "onnx", "torch"),
    ("cli",),
)
CIRCLES = {  # imports that would close a circle, each in a function or for annotations alone
    "addergraph -> *": "public names are loaded on first use; type checkers see where they live",
    "addergraph.ir.op -> addergraph.ops": "defining the ops registers them, before a look-up",
    "addergraph.ir.op -> addergraph.ir.graph": "annotations: a graph holds ops, an op builds nodes",
    "addergraph.ir.op -> addergraph.ir.trace": "annotations: gradients are written with tensors",
    "addergraph.ir.graph -> addergraph.ir.text": "str(graph) is its text, which builds graphs",
    "addergraph.ir.graph -> addergraph.report.drawing": "a notebook shows a graph as its picture",
    "addergraph.ir.intervals -> addergraph.ir.graph": "annotations: ops have ranges, graphs ops",
    "addergraph.ir.quantization -> addergraph.ir.graph": "annotations: types say what is stored",
    "addergraph.ir.walk -> addergraph.ir.graph": "annotations: graphs are rebuilt by a walk",
    "addergraph.ir.text_attributes -> addergraph.ir.text": "annotations: a body is a whole graph",
    "addergraph.ops.* -> addergraph.ops.*": "a gradient is written with other ops, they with it",
    "addergraph.codegen.kernels -> addergraph.codegen.kernels.all_kernels": "as ops: a registry",
    "addergraph.codegen.emit.shift_add -> addergraph.codegen.emit.indices": "annotations",
    "addergraph.codegen.emit.entry_threads -> addergraph.codegen.emit.module": "annotations",
    "addergraph.codegen.run.jit -> addergraph.codegen.export.aot": "Program.export, a convenience",
    "addergraph.codegen.run.jit -> addergraph.codegen.export.library": "annotations: what it gives",
    "addergraph.passes.recompute -> addergraph.passes.fuse": "annotations: a part of fuse",
    "addergraph.model.file -> addergraph.model.model": "annotations: a file makes a Model",
}


class Import(NamedTuple):
    file: str  # relative to the root, "passes/fuse.py"
    line: int
    module: str  # absolute
    relative: bool
    in_function: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def _files(folder: str) -> Iterator[Path]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        inside = path.relative_to(ROOT / folder).parts
        if folder != "addergraph" or inside[0] not in ("passes", "codegen"):  # symlinks
            yield path


def _module(path: Path) -> str:
    """The import name of a file, of an `__init__.py` the package's."""
    folder, *inside = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in inside if part != "__init__")])


@functools.cache
def _modules() -> frozenset[str]:
    return frozenset(_module(path) for folder in FOLDERS for path in _files(folder))


def _imported(found: Import) -> str:
    """The module that an import reads: the name imported may be one of its own names."""
    module = found.module
    return module if module in _modules() else module.rpartition(".")[0]


@functools.cache
def _imports(folder: str) -> list[Import]:
    return [found for path in _files(folder) for found in _imports_of(path, folder)]


def _imports_of(path: Path, folder: str) -> Iterator[Import]:
    inside = path.relative_to(ROOT / folder)
    package = [FOLDERS[folder], *inside.parts[:-1]]
    tree = ast.parse(path.read_text())
    for node, lazy in _nodes(tree, False):
        if isinstance(node, ast.Import):
            modules, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            level = node.level
            start = ".".join(package).split(".")[: -(level - 1) or None] if level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            modules = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            file = str(path.relative_to(ROOT))
            yield Import(file, node.lineno, module, level > 0, lazy)


def _nodes(node: ast.AST, lazy: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """All statements below `node`, and whether they are in a function or for annotations alone."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            continue  # expressions import nothing
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        inside = lazy or function or _is_type_checking(child)
        if isinstance(child, ast.stmt):
            yield child, inside
        yield from _nodes(child, inside)


def _is_type_checking(node: ast.AST) -> bool:
    """`if TYPE_CHECKING:`, whose imports never run."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and (node.test.id == "TYPE_CHECKING")
    )


def _within(module: str, *packages: str) -> bool:
    return any(module == p or module.startswith(f"{p}.") for p in packages)


def _none(found: list[Import]) -> None:
    assert not found, "\n" + "\n".join(map(str, found))


@pytest.mark.slow
def test_the_parser_of_imports_sees_them() -> None:
    found = {(i.file, i.module, i.relative) for f in FOLDERS for i in _imports(f)}
    assert ("addergraph/ir/trace.py", "addergraph.ir.graph.Builder", True) in found
    assert ("addergraph/ops/pointwise/relu.py", "addergraph.ir.Op", True) in found
    assert ("addergraph/ir/graph.py", "numpy", False) in found
    assert ("codegen/kernels/__init__.py", "addergraph.codegen.emit.builder.Emitter", True) in found


def test_only_the_compiler_imports_passes_and_codegen_and_only_in_functions() -> None:
    crossing = [i for i in _imports("addergraph") if _within(i.module, *list(FOLDERS.values())[1:])]
    _none([i for i in crossing if not i.file.startswith(COMPILER) or not i.in_function])


@pytest.mark.parametrize(("folder", "other"), [("passes", "codegen"), ("codegen", "passes")])
def test_passes_and_codegen_do_not_know_each_other(folder: str, other: str) -> None:
    _none([i for i in _imports(folder) if _within(i.module, FOLDERS[other], other)])


@pytest.mark.parametrize(
    ("folder", "stranger"),
    [
        *(("passes", s) for s in ("compiler", "model", "training", "report.lints", "verification")),
        *(
            ("codegen", s)
            for s in ("compiler", "model", "training", "report.lints", "verification")
        ),
        *(("compiler", s) for s in ("model", "training", "report.lints", "layers", "cli", "zoo")),
        ("training", "model"),
        ("verification", "model"),
    ],
)
def test_strangers(folder: str, stranger: str) -> None:
    """Not even in functions."""
    mine = [i for f in FOLDERS for i in _imports(f) if _unit(_importer(i)) == folder]
    _none([i for i in mine if _within(i.module, f"addergraph.{stranger}")])


def test_a_unit_imports_lower_floors_only() -> None:
    """But for what closes a named circle, and the version of the package."""
    floor = {unit: number for number, units in enumerate(FLOORS) for unit in units}
    wrong = []
    for found in _all_imports():
        importer, imported = _importer(found), _imported(found)
        unit, other = _unit(importer), _unit(imported)
        if unit in ("", "__main__") or unit == other or _named(importer, imported):
            continue
        if found.module != "addergraph.__version__" and floor[other] >= floor[unit]:
            wrong.append(found)
    _none(wrong)


def test_no_circle_of_imports_but_the_named_ones() -> None:
    """Of modules; imports inside functions and for annotations count."""
    reads: dict[str, set[str]] = {module: set() for module in _modules()}
    for found in _all_imports():
        importer, imported = _importer(found), _imported(found)
        if importer != imported and not _named(importer, imported):
            reads[importer].add(imported)
    try:
        list(TopologicalSorter(reads).static_order())
    except CycleError as error:
        raise AssertionError(" is imported by ".join(error.args[1])) from None


def test_named_circles_are_there_and_close_when_nothing_is_imported_yet() -> None:
    found = [(i, _named(_importer(i), _imported(i))) for i in _all_imports()]
    assert {name for _, name in found if name is not None} == set(CIRCLES)
    face = "addergraph -> *"  # imports what every user needs at once
    several = "addergraph.ops.* -> addergraph.ops.*"  # ops of one folder read each other's parts
    _none([i for i, name in found if name not in (None, face, several) and not i.in_function])


def _all_imports() -> list[Import]:
    """Those of our own modules."""
    return [i for f in FOLDERS for i in _imports(f) if _imported(i) in _modules()]


def _importer(found: Import) -> str:
    return _module(ROOT / found.file)


def _named(importer: str, imported: str) -> str | None:
    """The entry of CIRCLES that an import is, if it is one."""
    for name in CIRCLES:
        start, end = name.split(" -> ")
        if fnmatch.fnmatchcase(importer, start) and fnmatch.fnmatchcase(imported, end):
            return name
    return None


def _unit(module: str) -> str:
    """The folder or file of `addergraph` that a module belongs to; "" for the package itself."""
    _, *inside = module.split(".")
    if inside[:2] == ["report", "findings"]:
        return "report.findings"
    return inside[0] if inside else ""


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_are_relative_inside_a_folder_and_absolute_across(folder: str) -> None:
    def inside(module: str) -> bool:
        others = [p for p in FOLDERS.values() if p != FOLDERS[folder]]
        if folder == "addergraph":
            return _within(module, "addergraph") and not _within(module, *others)
        return _within(module, FOLDERS[folder])

    mine = [i for i in _imports(folder) if _within(i.module, "addergraph")]
    _none([i for i in mine if i.relative != inside(i.module) and not i.file.startswith(COMPILER)])


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_module_is_imported_under_its_folder_name(folder: str) -> None:
    _none([i for i in _imports(folder) if _within(i.module, "passes", "codegen")])


def test_only_codegen_imports_llvmlite_and_only_one_file_its_binding() -> None:
    _none(
        [i for f in ("addergraph", "passes") for i in _imports(f) if _within(i.module, "llvmlite")]
    )
    binding = [i for i in _imports("codegen") if _within(i.module, "llvmlite.binding")]
    assert {i.file for i in binding} <= {"codegen/llvm.py"}, binding


def test_heavy_modules_are_imported_in_functions() -> None:
    """The command line is exempt: it is built with click, and nothing else imports it. So is what
    is imported on the first use of a name of `addergraph.torch`."""
    heavy = [i for i in _imports("addergraph") if i.module.split(".")[0] in HEAVY]
    early = [i for i in heavy if not i.in_function and i.file not in COMMAND_LINE]
    _none([i for i in early if i.module.split(".")[0] != "torch" or not i.file.startswith(BRIDGE)])
    cli = [i for i in _imports("addergraph") if _within(i.module, "addergraph.cli.main")]
    assert {i.file for i in cli} <= {"addergraph/__main__.py"}, cli


def test_import_loads_nothing_heavy() -> None:
    code = "import addergraph, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(done.stdout.split())


def test_the_package_list_is_the_folders_with_an_init_file() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for folder, package in FOLDERS.items():
        for path in _files(folder):
            if path.name == "__init__.py":
                found.add(".".join([package, *path.relative_to(ROOT / folder).parts[:-1]]))
    assert sorted(settings["packages"]) == sorted(found)
    assert settings["package-dir"] == {package: folder for folder, package in FOLDERS.items()}


def test_every_folder_with_python_files_is_a_package() -> None:
    folders = {path.parent for folder in FOLDERS for path in _files(folder)}
    assert [str(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", ["passes", "codegen"])
def test_a_folder_does_not_import_under_its_own_name(folder: str) -> None:
    with pytest.raises(ImportError, match=f"import it as addergraph.{folder}"):
        importlib.import_module(folder)
    assert importlib.import_module(f"addergraph.{folder}").__name__ == f"addergraph.{folder}"


def test_public_names_exist_and_are_not_shadowed_by_submodules() -> None:
    for path in _files("addergraph"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.name not in ("__main__.py", "__init__.py") and _is_importable(module):
            importlib.import_module(module)
    for name in ag.__all__:
        assert getattr(ag, name) is not None
        assert name in dir(ag)
    functions = (
        "trace",
        "compile",
        "compile_layers",
        "grad",
        "interpret",
        "load_native",
        "parse",
        "tensor",
        "to_onnx",
        "from_onnx",
        "graph_from_onnx",
        "verify",
        "verify_layers",
    )
    assert [name for name in functions if not callable(getattr(ag, name))] == []


def _is_importable(module: str) -> bool:
    """Whether an optional package that the module extends is there."""
    return not module.startswith("addergraph.torch.") or find_spec("torch") is not None


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'compyle'"):
        ag.compyle  # type: ignore[attr-defined]  # noqa: B018
