"""package: what other build systems read, by their tools where these are there, else by their
documented layouts (see the addresses in codegen/export/package.py)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import addergraph as ag
from addergraph.cli.main import main
from addergraph.codegen import llvm
from addergraph.codegen.export.header import header
from addergraph.codegen.export.interface import interface_of
from addergraph.codegen.export.library import Exported
from addergraph.codegen.export.package import (
    PACKAGES,
    package_files,
    package_paths,
    paths_of,
    require_package,
)
from addergraph.codegen.targets.lookup import TARGETS, target_named
from addergraph.compiler import lower
from addergraph.errors import DataError, StorageError, UnsupportedError
from tests.codegen.libraries import MIXED
from tests.codegen.test_header import BYTES

MAIN = """
#include <net.h>
static unsigned char memory[NET_ARENA_BYTES + NET_ARENA_ALIGN];
int main(void)
{
    return (int)net_selftest(memory + (NET_ARENA_ALIGN - (uintptr_t)memory % NET_ARENA_ALIGN));
}
"""
TARGET = {"arduino": "thumbv6m", "esp-idf": "riscv32imc", "zephyr": "riscv32i"}


def export(folder: Path, package: str | None, **more: str) -> Exported:
    weights = {"f": np.arange(8, dtype=np.uint8).reshape(2, 4)}
    target = more.pop("target", TARGET.get(package or "", "host"))
    return ag.export(
        ag.parse(BYTES), folder, weights=weights, target=target, package=package,
        name=more.pop("name", "net"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Exported]:
    folder = tmp_path_factory.mktemp("packages")
    return {package: export(folder / package, package) for package in PACKAGES}


def root(exported: Exported) -> Path:
    return exported.header.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# -- the layouts ---------------------------------------------------------------------------------


def test_every_file_is_listed_with_its_digest(packages: Mapping[str, Exported]) -> None:
    for package, made in packages.items():
        facts = json.loads(made.metadata.read_text())
        assert facts["package"] == package and made.package
        assert {str(p.relative_to(root(made))) for p in made.package} <= facts["files"].keys()
        assert facts["files"].keys() == contents(root(made)).keys() - {"metadata.json"}


def test_equal_exports_have_equal_packages(
    packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    again = export(tmp_path, "arduino")
    assert contents(root(again)) == contents(root(packages["arduino"]))


def test_arduino_finds_the_library_of_each_core(packages: Mapping[str, Exported]) -> None:
    where = root(packages["arduino"])
    lines = (where / "library.properties").read_text().splitlines()
    fields = dict(line.split("=", 1) for line in lines)
    assert fields.keys() >= {
        "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url",
        "architectures",
    }  # fmt: skip
    assert re.fullmatch(r"[A-Za-z][\w .-]{0,62}", fields["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", fields["version"]) and all(fields.values())
    assert (fields["precompiled"], fields["ldflags"]) == ("full", "-lnet")
    assert fields["category"] == "Data Processing"
    assert (where / "src" / fields["includes"]).read_bytes() == (where / "net.h").read_bytes()
    cores = {p.parent.name for p in where.glob("src/*/libnet.a")}
    assert cores > {"cortex-m0", "cortex-m0plus", "cortex-m4"}
    library = (where / "libnet.a").read_bytes()
    assert all(p.read_bytes() == library for p in where.glob("src/*/libnet.a"))
    assert (where / "examples" / "net" / "net.ino").exists()


def test_the_other_manifests(packages: Mapping[str, Exported]) -> None:
    library = json.loads((root(packages["platformio"]) / "library.json").read_text())
    assert library["build"]["flags"] == ["-L.", "-lnet"] and library["headers"] == "net.h"
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    zephyr = root(packages["zephyr"]) / "zephyr"
    assert (zephyr / "module.yml").read_text().split() == [
        "name:", "net", "build:", "cmake:", "zephyr", "kconfig:", "zephyr/Kconfig",
    ]  # fmt: skip
    assert "config ADDERGRAPH_NET\n\tbool" in (zephyr / "Kconfig").read_text()
    component = (root(packages["esp-idf"]) / "idf_component.yml").read_text()
    assert 'version: "1.0.0"\n' in component and "esp32c3" in component
    assert 'dependencies:\n  idf: ">=5.0"\n' in component


DSP = "(CPU_CORTEX_M4 || CPU_CORTEX_M7 || ARMV8_M_DSP)"


@pytest.mark.parametrize(
    ("target", "depends", "others"),
    [
        ("thumbv6m", "CPU_CORTEX_M", ""),
        ("thumbv7em", DSP, "mbed_rp2040 nordicnrf51 raspberrypi sam"),
        ("thumbv7em-f32", f"{DSP} && FPU", "mbed_rp2040 nordicnrf51 raspberrypi sam"),
        ("thumbv8m-mve", "ARMV8_1_M_MVEF && FPU", "mbed_nano nordicnrf52 samd renesas_uno"),
        ("riscv32imc", "RISCV && !64BIT && !FLOAT_HARD", ""),
        ("riscv32i", "RISCV && !64BIT && !FLOAT_HARD", ""),
    ],
)
def test_packages_are_for_the_cores_that_run_the_code(
    target: str, depends: str, others: str
) -> None:
    """Linkers put code of a Cortex-M4 into a program of a Cortex-M0 without a word; `others` are
    systems whose cores lack what the target needs."""
    made = interface_of(lower(ag.parse(BYTES), target_named(target)), "net")
    files = {"net.h": b"", "libnet.a": b""}
    texts = {
        path: content.decode()
        for package in ("zephyr", "arduino", "platformio")
        for path, content in package_files(package, made, files).items()
        if isinstance(content, bytes)
    }
    assert f"\tdepends on {depends}\n" in texts["zephyr/Kconfig"]
    architectures = re.search("^architectures=(.*)$", texts["library.properties"], re.MULTILINE)
    assert architectures is not None and architectures[1]
    named = {*architectures[1].split(","), *json.loads(texts["library.json"])["platforms"]}
    assert not named & {*others.split()}


@pytest.mark.needs("pio")
def test_platformio_packs_the_library(packages: Mapping[str, Exported], tmp_path: Path) -> None:
    packed = tmp_path / "net.tar.gz"
    command = ["pio", "pkg", "pack", str(root(packages["platformio"])), "-o", str(packed)]
    subprocess.run(command, check=True, capture_output=True)
    assert packed.exists()


FLOATS = {"cortex-m4": ["-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"], "cortex-m7": ["-mfloat-abi=soft"]}


@pytest.mark.needs("arm-none-eabi-gcc")
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4", "cortex-m7", "cortex-m33"])
def test_programs_of_each_core_link_the_archive(
    core: str, packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    source = root(packages["arduino"]) / "src"
    (tmp_path / "main.c").write_text(MAIN.replace("main(void)", "_start(void)"))
    command = [
        "arm-none-eabi-gcc", "-nostdlib", "-mthumb", f"-mcpu={core}", *FLOATS.get(core, []),
        f"-I{source}", "main.c", f"-L{source / core}", "-lnet", "-o", "net.elf",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "net.elf").exists()


ARDUINO = """
#include <stdint.h>
static struct { void begin(long); void print(long); void print(double); void print(char);
    void print(unsigned long); void print(const char *);
    void println(long); void println(const char *); } Serial;
void delay(unsigned long); unsigned long micros();
"""


@pytest.mark.needs("c++")
@pytest.mark.parametrize("text", [BYTES, MIXED])
def test_the_sketch_is_a_program(text: str, tmp_path: Path) -> None:
    """Of any tensors: every type, none at all, and names that are words of C."""
    made = interface_of(lower(ag.parse(text), target_named("x86-64")), "net")
    files = {"net.h": header(made, exact=True).encode(), "libnet.a": b""}
    (tmp_path / "net.h").write_bytes(files["net.h"])
    sketch = package_files("arduino", made, files)["examples/net/net.ino"]
    assert isinstance(sketch, bytes)
    (tmp_path / "net.cpp").write_bytes(ARDUINO.encode() + sketch)
    done = subprocess.run(
        ["c++", "-std=c++11", "-fsyntax-only", "-Wall", "-I.", "net.cpp"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# -- by CMake ------------------------------------------------------------------------------------

PROJECT = "cmake_minimum_required(VERSION 3.11)\nproject(use {languages})\n"


def configured(folder: Path, text: str, languages: str = "NONE", *options: str) -> str:
    """What CMake says of a project with this text."""
    (folder / "CMakeLists.txt").write_text(PROJECT.format(languages=languages) + text)
    command = ["cmake", "-S", str(folder), "-B", str(folder / "build"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


@pytest.mark.needs("cmake", "cc")
@pytest.mark.parametrize("way", ["find_package(net 1.0 REQUIRED)", 'add_subdirectory("{0}" net)'])
def test_cmake_builds_with_it(way: str, packages: Mapping[str, Exported], tmp_path: Path) -> None:
    where = root(packages["cmake"])
    (tmp_path / "main.c").write_text(MAIN)
    text = way.format(where) + "\nadd_executable(use main.c)\ntarget_link_libraries(use net::net)\n"
    said = configured(tmp_path, text, "C", f"-DCMAKE_PREFIX_PATH={where}")
    built = ["cmake", "--build", str(tmp_path / "build")]
    subprocess.run(built, check=True, capture_output=True)
    assert "CMake Warning" not in said
    subprocess.run([tmp_path / "build" / "use"], check=True)


@pytest.mark.needs("cmake")
@pytest.mark.parametrize(
    ("pointer", "version", "found"),
    [(8, "1", True), (8, "1.0.0", True), (8, "1.1", False), (8, "2", False), (4, "1", False)],
)
def test_cmake_finds_what_fits(
    pointer: int, version: str, found: bool, packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    where = root(packages["cmake"])
    text = f"set(CMAKE_SIZEOF_VOID_P {pointer})\nfind_package(net {version} REQUIRED)\n"
    said = configured(tmp_path, text, "NONE", f"-DCMAKE_PREFIX_PATH={where}")
    assert ("CMake Error" not in said) == found, said


# The commands that Zephyr and ESP-IDF give to what they include, as files that say what they got.
STUBS = """
function(zephyr_include_directories)
  file(WRITE "${CMAKE_BINARY_DIR}/include" "${ARGN}")
endfunction()
function(zephyr_library_import name path)
  file(WRITE "${CMAKE_BINARY_DIR}/library" "${path}")
endfunction()
function(idf_component_register)
  file(WRITE "${CMAKE_BINARY_DIR}/include" "${ARGN}")
endfunction()
function(add_prebuilt_library name path)
  add_library(${name} STATIC IMPORTED)
  file(WRITE "${CMAKE_BINARY_DIR}/library" "${path}")
endfunction()
add_library(component INTERFACE)
set(COMPONENT_LIB component)
set(CONFIG_ADDERGRAPH_NET y)
"""


@pytest.mark.needs("cmake")
@pytest.mark.parametrize(("package", "inside"), [("zephyr", "zephyr"), ("esp-idf", ".")])
def test_their_cmake_files_name_the_library(
    package: str, inside: str, packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    where = root(packages[package])
    said = configured(tmp_path, f'{STUBS}\nadd_subdirectory("{where / inside}" net)\n')
    assert "CMake Error" not in said, said
    assert Path((tmp_path / "build" / "library").read_text()).samefile(where / "libnet.a")
    included = (tmp_path / "build" / "include").read_text().replace("INCLUDE_DIRS;", "")
    assert (where / inside / included.partition(";")[0] / "net.h").exists()


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "target", "said"),
    [
        ("arduino", "host", "arduino is for Cortex-M and RISC-V cores of 32 bits: give --target"),
        ("zephyr", "riscv64i", "zephyr is for Cortex-M and RISC-V cores of 32 bits"),
        ("esp-idf", "thumbv6m", "riscv32imc; ESP32, S2 and S3 are Xtensa"),
        ("cmake", "wasm32", "cmake is for programs in C: pages load the module"),
        ("arduinno", "thumbv6m", r'"arduinno" \(did you mean "arduino"\?\); known: arduino, cmake'),
    ],
)
def test_a_package_that_cannot_be_is_refused_before_compiling(
    package: str, target: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(llvm, "compile_both")
    with pytest.raises((UnsupportedError, DataError), match=said):
        export(tmp_path / "out", package, target=target)
    assert not (tmp_path / "out").exists()


def test_every_core_without_a_system_and_of_32_bits_has_all() -> None:
    for target in TARGETS.values():
        if target.hosted or target.in_engine or target.word != 32:
            continue
        require_package("zephyr", target, "net")
        assert len(paths_of("arduino", target, "net")) > 3


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="has 51 letters, a package's name at most 50"):
        export(tmp_path, "cmake", name="n" * 51)


# -- one folder after another --------------------------------------------------------------------


def test_another_package_takes_the_place_of_the_first(tmp_path: Path) -> None:
    export(tmp_path, "arduino")
    made = export(tmp_path, "esp-idf")
    ours = {str(p.relative_to(tmp_path)) for p in made.package}
    assert package_paths("net") & contents(tmp_path).keys() == ours
    export(tmp_path, None)
    assert not package_paths("net") & contents(tmp_path).keys()


@pytest.mark.parametrize("changed", ["CMakeLists.txt", "netConfig.cmake"])
@pytest.mark.parametrize("package", ["cmake", None])
def test_a_changed_file_of_a_package_is_kept(
    changed: str, package: str | None, packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    """Also where the next export would have removed it."""
    shutil.copytree(root(packages["cmake"]), tmp_path, dirs_exist_ok=True)
    (tmp_path / changed).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(StorageError, match=f'{changed}" was changed after it was exported'):
        export(tmp_path, package)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("exported", [True, False])
def test_a_file_of_the_users_is_kept(
    exported: bool, packages: Mapping[str, Exported], tmp_path: Path
) -> None:
    if exported:
        export(tmp_path, None)
    (tmp_path / "CMakeLists.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"has a file CMakeLists.txt that is of no export"):
        export(tmp_path, "cmake")
    if exported:
        export(tmp_path, None)
    assert (tmp_path / "CMakeLists.txt").read_text() == "mine"


def test_only_files_of_packages_are_removed(tmp_path: Path) -> None:
    """Whatever metadata.json says was written."""
    export(tmp_path / "out", None)
    said = json.loads((tmp_path / "out" / "metadata.json").read_text())
    for name in ("../mine", "mine"):
        (tmp_path / "out" / name).write_text("mine")
        said["files"][name] = "0"
    (tmp_path / "out" / "metadata.json").write_text(json.dumps(said))
    export(tmp_path / "out", "cmake")
    assert (tmp_path / "mine").exists() and (tmp_path / "out" / "mine").exists()


def test_the_command_lists_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.ag").write_text(BYTES)
    np.savez(tmp_path / "w.npz", f=np.zeros((2, 4), np.uint8))
    with pytest.raises(SystemExit) as ended:
        main(
            ["compile", f"{tmp_path}/net.ag", "--weights", f"{tmp_path}/w.npz", "-o",
             f"{tmp_path}/out", "--target", "riscv32i", "--package", "zephyr"]
        )  # fmt: skip
    assert ended.value.code == 0
    assert "zephyr/Kconfig  for zephyr" in capsys.readouterr().out
