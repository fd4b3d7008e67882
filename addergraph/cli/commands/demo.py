"""`addergraph demo`."""

from __future__ import annotations

from dataclasses import dataclass

from ... import compiler, zoo
from ...data import digits
from ...demo import require_readable, serve, site, write
from ...demo.site import TARGET
from ...model.quantization import quantize
from ...quantization import Quantized, load_quantized
from ...settings import setting
from ...training.recipes import find

NETWORK, RECIPE = "all-adder", "digits"
CALIBRATION = 256  # images
FILE = "digits.safetensors"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The options of the command."""

    model: str | None = setting(None, place=True)
    port: int | None = setting(None, "Port to serve on.", kind=int, least=1, most=65535,
                               unset="a free one")  # fmt: skip
    write: str | None = setting(
        None,
        "Write the page into this folder, for any server, and do not serve it.",
        metavar="FOLDER",
        unset="serve it",
    )


def demo(options: Demo) -> None:
    """Makes the page, of a new network where none is given, and serves or writes it."""
    compiler.require_linker(TARGET)  # before a network is trained
    network = _trained() if options.model is None else load_quantized(options.model)
    require_readable(network)
    print("compiling to WebAssembly", flush=True)
    files = site(network)
    if options.write is None:
        serve(files, options.port or 0, lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))
        return
    where = write(files, options.write)
    if options.model is None:
        network.save(where / FILE)
        print(f"wrote {where / FILE}: addergraph demo {where / FILE} does not train again")
    size = sum(map(len, files.values()))
    print(f"wrote the page into {where} ({size:,} bytes): index.html, for any server")


def _trained() -> Quantized:
    """The int8 form of a network that only adds, trained on the digits."""
    data, recipe, model = digits.dataset(), find(RECIPE), zoo.build(NETWORK)
    model.preprocessing = data.preprocessing(recipe.data.normalization(data))
    print(f"training {NETWORK} on {len(data.x_train):,} digits, about half a minute", flush=True)
    model.fit(data.x_train, data.y_train, data.x_test, data.y_test, **recipe.arguments())
    return quantize(model, data.x_train[:CALIBRATION])
