"""What other build systems expect beside a library: the same files as ever, and these around them.

    arduino      a library of the Arduino IDE and CLI, precompiled, with a sketch
    cmake        a package for find_package and add_subdirectory
    esp-idf      a component
    platformio   a library of PlatformIO
    zephyr       a module

Each is a table of texts by path. The layouts are those of

    https://docs.arduino.cc/arduino-cli/library-specification
    https://cmake.org/cmake/help/latest/manual/cmake-packages.7.html
    https://docs.espressif.com/projects/esp-idf, "Build System" and "Component Manager"
    https://docs.platformio.org/en/latest/manifests/library-json
    https://docs.zephyrproject.org/latest/develop/modules.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Template

from addergraph.errors import DataError, UnsupportedError, nearest
from addergraph.files.storage import Pieces

from ..targets.target import Target
from .interface import ABI_VERSION, Interface

LONGEST = 50  # letters of a name: Arduino takes 63, with what stands before it


class _Text(Template):
    """@p, where CMake, Kconfig and C++ have other meanings for $."""

    delimiter = "@"


_LIBRARY_PROPERTIES = """\
name=addergraph_@p
version=@version
author=AdderGraph
maintainer=AdderGraph
sentence=The network @p, compiled by AdderGraph for @target.
paragraph=A call needs @arena bytes of RAM beside its stack. The header says the rest.
category=Data Processing
url=https://arxiv.org/abs/1912.13200
architectures=@platforms
includes=@p.h
precompiled=full
ldflags=-l@p
"""
_SKETCH = """\
/* Tests the network @p, then runs it again and again: on zeros, until you fill its inputs. */
#include <@p.h>

alignas(@{M}_ARENA_ALIGN) static unsigned char arena[@{M}_ARENA_BYTES];
@tensors

void setup() {
  Serial.begin(115200);
  delay(1000);
  Serial.println(@{p}_selftest(arena) == @{M}_OK ? "self-test passed" : "self-test failed");
}

void loop() {
  unsigned long start = micros();
  long code = @{p}_run(@arguments, arena);
  unsigned long took = micros() - start;
  if (code != @{M}_OK) {
    Serial.print("error ");
    Serial.println(code);
  }
@prints  Serial.print(took);
  Serial.println(" microseconds");
  delay(1000);
}
"""
_PRINTS = """\
  for (unsigned long i = 0; i < @elements; i++) {
    Serial.print((@kind)tensor_@c_name[i]);
    Serial.print(' ');
  }
"""
_CONFIG = """\
# The library @p for @triple: find_package(@p), then link @p::@p.
if(NOT TARGET @p::@p)
  add_library(@p::@p STATIC IMPORTED GLOBAL)
  set_target_properties(@p::@p PROPERTIES
    IMPORTED_LOCATION "${CMAKE_CURRENT_LIST_DIR}/lib@p.a"
    INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}")
endif()
"""
_CONFIG_VERSION = """\
# The first number is that of the C interface.
set(PACKAGE_VERSION @version)
if(PACKAGE_FIND_VERSION_MAJOR STREQUAL @major AND NOT PACKAGE_FIND_VERSION VERSION_GREATER @version)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
if(PACKAGE_FIND_VERSION STREQUAL @version)
  set(PACKAGE_VERSION_EXACT TRUE)
endif()
if(CMAKE_SIZEOF_VOID_P AND NOT CMAKE_SIZEOF_VOID_P EQUAL @pointer)
  set(PACKAGE_VERSION_UNSUITABLE TRUE)
endif()
"""
_SUBDIRECTORY = """\
# For add_subdirectory: the same target as that of find_package.
cmake_minimum_required(VERSION 3.11)
include("${CMAKE_CURRENT_LIST_DIR}/@{p}Config.cmake")
"""
_COMPONENT = """\
idf_component_register(INCLUDE_DIRS "." REQUIRED_IDF_TARGETS @cores)
add_prebuilt_library(addergraph_@p "${CMAKE_CURRENT_LIST_DIR}/lib@p.a")
target_link_libraries(${COMPONENT_LIB} INTERFACE addergraph_@p)
"""
_COMPONENT_MANIFEST = """\
version: "@version"
description: The network @p, compiled by AdderGraph for @target.
targets: [@listed]
dependencies:
  idf: ">=5.0"
"""
_LIBRARY_JSON = """\
{
  "name": "@p",
  "version": "@version",
  "description": "The network @p, compiled by AdderGraph for @target.",
  "frameworks": "*",
  "platforms": [@quoted],
  "headers": "@p.h",
  "build": {
    "flags": ["-L.", "-l@p"],
    "includeDir": ".",
    "srcFilter": ["-<*>"],
    "libArchive": false
  }
}
"""
_MODULE = """\
name: @p
build:
  cmake: zephyr
  kconfig: zephyr/Kconfig
"""
_KCONFIG = """\
config ADDERGRAPH_@M
\tbool "The network @p, compiled by AdderGraph"
\tdepends on @depends
\thelp
\t  Links lib@p.a, which is for @target, and makes @p.h known.
\t  A call needs an arena of @arena bytes, which the application brings.
"""
_ZEPHYR = """\
if(CONFIG_ADDERGRAPH_@M)
  zephyr_include_directories(${CMAKE_CURRENT_LIST_DIR}/..)
  zephyr_library_import(addergraph_@p ${CMAKE_CURRENT_LIST_DIR}/../lib@p.a)
endif()
"""


@dataclass(frozen=True)
class _Family:
    """Cores that run one kind of code, as other systems call them.

    mcus       Arduino's {build.mcu}, each the name of a folder
    arduino, platformio   names of platforms
    chips      of Espressif's
    depends    of Zephyr's Kconfig
    """

    mcus: tuple[str, ...] = ()
    arduino: tuple[str, ...] = ()
    platformio: tuple[str, ...] = ()
    chips: tuple[str, ...] = ()
    depends: str = ""


# Arduino's and PlatformIO's names of boards that have such cores. mbed_rp2040, nordicnrf51 and
# raspberrypi are of M0 and M0+ alone, sam is of M3.
_WITH_DSP = (
    ("mbed_giga", "mbed_nano", "mbed_portenta", "nRF5", "nrf52", "renesas_portenta", "renesas_uno",
     "rp2040", "samd", "stm32"),
    ("atmelsam", "nordicnrf52", "renesas-ra", "ststm32", "teensy"),
)  # fmt: skip
_OF_ARM = (
    tuple(sorted((*_WITH_DSP[0], "mbed_rp2040", "sam"), key=str.lower)),
    tuple(sorted((*_WITH_DSP[1], "nordicnrf51", "raspberrypi"))),
)
_WITH_MVE = ("stm32",), ("renesas-ra", "ststm32")


def _cortex(
    cores: Iterable[str], boards: tuple[tuple[str, ...], tuple[str, ...]], depends: str
) -> _Family:
    arduino, platformio = boards
    return _Family(tuple(f"cortex-{c}" for c in cores), arduino, platformio, (), depends)


_ESP = ("esp32c2", "esp32c3", "esp32c6", "esp32h2")  # of RISC-V, in programs of ilp32
_FAMILIES = {  # by what a target's triple begins with, of cores without an operating system
    "thumbv6m-none": _cortex(("m0", "m0plus", "m3", "m4", "m7", "m33"), _OF_ARM, "CPU_CORTEX_M"),
    "thumbv7em-none": _cortex(
        ("m4", "m7", "m33"), _WITH_DSP, "(CPU_CORTEX_M4 || CPU_CORTEX_M7 || ARMV8_M_DSP)"
    ),
    "thumbv8.1m.main-none": _cortex(("m55", "m85"), _WITH_MVE, "ARMV8_1_M_MVEF"),
    "riscv32-unknown-none": _Family(
        _ESP, ("esp32",), ("espressif32",), _ESP, "RISCV && !64BIT && !FLOAT_HARD"
    ),
}


@dataclass(frozen=True)
class _Ecosystem:
    """texts  by path; copies  path -> the file of the export that stands there, too. A path with
    @mcu is one for each of the family's.
    needs     what a family has to have, `advice` what to do about a target whose has none
    """

    texts: Mapping[str, str]
    copies: Mapping[str, str]
    needs: str
    advice: str


_BARE = "is for Cortex-M and RISC-V cores of 32 bits: give --target thumbv6m or riscv32imc"
_PROGRAMS = "is for programs in C: pages load the module and script that compile writes"
PACKAGES = {
    "arduino": _Ecosystem(
        {"library.properties": _LIBRARY_PROPERTIES, "examples/@p/@p.ino": _SKETCH},
        {"src/@p.h": "@p.h", "src/@mcu/lib@p.a": "lib@p.a"},
        "mcus",
        _BARE,
    ),
    "cmake": _Ecosystem(
        {
            "CMakeLists.txt": _SUBDIRECTORY,
            "@{p}Config.cmake": _CONFIG,
            "@{p}ConfigVersion.cmake": _CONFIG_VERSION,
        },
        {},
        "platformio",
        _PROGRAMS,
    ),
    "esp-idf": _Ecosystem(
        {"CMakeLists.txt": _COMPONENT, "idf_component.yml": _COMPONENT_MANIFEST},
        {},
        "chips",
        "is for an ESP32 of RISC-V (C2, C3, C6, H2): give --target riscv32imc; ESP32, S2 and S3 "
        "are Xtensa, for which LLVM makes no code here",
    ),
    "platformio": _Ecosystem({"library.json": _LIBRARY_JSON}, {}, "platformio", _PROGRAMS),
    "zephyr": _Ecosystem(
        {
            "zephyr/module.yml": _MODULE,
            "zephyr/CMakeLists.txt": _ZEPHYR,
            "zephyr/Kconfig": _KCONFIG,
        },
        {},
        "depends",
        _BARE,
    ),
}


def _family(target: Target) -> _Family:
    known = (f for start, f in _FAMILIES.items() if target.triple.startswith(start))
    return next(known, _Family(platformio=() if target.in_engine else ("native",)))


def require_package(package: str, target: Target, prefix: str) -> None:
    """DataError unless there is such a package; UnsupportedError where that of a library `prefix`
    cannot be for this target."""
    if package not in PACKAGES:
        raise DataError(
            f'unknown package "{package}"{nearest(package, PACKAGES)}; known: {", ".join(PACKAGES)}'
        )
    one = PACKAGES[package]
    if not getattr(_family(target), one.needs):
        raise UnsupportedError(f'"{target.name}": a package for {package} {one.advice}')
    if len(prefix) > LONGEST:
        raise UnsupportedError(
            f'"{prefix}" has {len(prefix)} letters, a package\'s name at most {LONGEST}: '
            "give another one (name=..., --name)"
        )


def package_files(
    package: str, interface: Interface, files: Mapping[str, bytes | Pieces]
) -> dict[str, bytes | Pieces]:
    """Path -> content of what a package has beside the `files` of the library."""
    one, family, prefix = PACKAGES[package], _family(interface.target), interface.prefix
    words = _words(interface, family)
    made: dict[str, bytes | Pieces] = {}
    for path, text in one.texts.items():
        made |= dict.fromkeys(_paths(path, prefix), _Text(text).substitute(words).encode())
    for path, source in one.copies.items():
        content = files[_Text(source).substitute(words)]
        made |= dict.fromkeys(_paths(path, prefix, family.mcus), content)
    return made


def paths_of(package: str | None, target: Target, prefix: str) -> list[str]:
    """The paths of `package_files`; none without a package."""
    if package is None:
        return []
    one, mcus = PACKAGES[package], _family(target).mcus
    return [made for path in (*one.texts, *one.copies) for made in _paths(path, prefix, mcus)]


def package_paths(prefix: str) -> frozenset[str]:
    """Every path that any package of the library `prefix` may have."""
    mcus = {mcu for family in _FAMILIES.values() for mcu in family.mcus}
    paths = (path for one in PACKAGES.values() for path in (*one.texts, *one.copies))
    return frozenset(made for path in paths for made in _paths(path, prefix, mcus))


def _paths(path: str, prefix: str, mcus: Iterable[str] = ()) -> list[str]:
    """A path of the tables, for each of `mcus` where it is one for each."""
    each = mcus if "@mcu" in path else [""]
    return list(dict.fromkeys(_Text(path).substitute(p=prefix, mcu=mcu) for mcu in each))


def _words(interface: Interface, family: _Family) -> dict[str, object]:
    tensors = [
        f"static {a.c_type} tensor_{a.c_name}[{interface.elements(a)} + 1];"
        for a in interface.arguments
    ]
    prints = [
        _Text(_PRINTS).substitute(
            elements=interface.elements(a),
            c_name=a.c_name,
            kind="double" if a.c_type == "float" else "long",
        )
        for a in interface.outputs
    ]
    target = interface.target
    return {
        "p": interface.prefix,
        "M": interface.macro,
        "arena": f"{interface.arena_bytes:,}",
        "arguments": ", ".join(f"tensor_{a.c_name}" for a in interface.arguments),
        "cores": " ".join(family.chips),
        # Zephyr leaves a float unit off, so that its instructions fault, unless FPU is chosen.
        "depends": family.depends + " && FPU" * target.floats,
        "listed": ", ".join(family.chips),
        "major": ABI_VERSION,
        "platforms": ",".join(family.arduino),
        "pointer": target.pointer_bytes,
        "prints": "".join(prints),
        "quoted": ", ".join(f'"{name}"' for name in family.platformio),
        "target": target.name,
        "tensors": "\n".join(tensors),
        "triple": target.triple,
        "version": f"{ABI_VERSION}.0.0",
    }
