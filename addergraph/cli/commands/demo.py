"""`addergraph demo`."""

from __future__ import annotations

from dataclasses import dataclass

from ... import compiler, zoo
from ...data import digits
from ...demo import require_readable, serve, site, teacher_of, write
from ...demo.site import TARGET
from ...files import storage
from ...model import Model
from ...model.quantization import quantize
from ...quantization import Quantized, is_quantized, load_quantized
from ...settings import setting
from ...training.recipes import find

NETWORK, RECIPE = "all-adder", "digits"
CALIBRATION = 256  # images
FILE, FLOAT_FILE = "digits.safetensors", "digits_f32.safetensors"


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
    """Makes the page, of a new network where none is given, and serves or writes it. Where the
    float network is at hand the page can be taught."""
    compiler.require_linker(TARGET)  # before a network is trained
    learns, network = _networks(options.model)
    require_readable(network)
    print("compiling to WebAssembly", flush=True)
    if learns is None:
        print("an int8 network has no gradients: the page cannot be taught (give the float model)")
    files = site(network, None if learns is None else teacher_of(learns, digits.dataset()))
    if options.write is None:
        serve(files, options.port or 0, lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))
        return
    where = write(files, options.write)
    if options.model is None and learns is not None:
        network.save(where / FILE)
        learns.save(where / FLOAT_FILE)
        print(f"wrote {where / FILE}, and {where / FLOAT_FILE} of f32:", end=" ")
        print(f"addergraph demo {where / FLOAT_FILE} does not train again")
    size = sum(map(len, files.values()))
    print(f"wrote the page into {where} ({size:,} bytes): index.html, for any server")


def _networks(file: str | None) -> tuple[Model | None, Quantized]:
    """The float network, where there is one, and its int8 form."""
    if file is not None and is_quantized(storage.load(file)[1]):
        return None, load_quantized(file)
    model = _trained() if file is None else Model.load(file)
    return model, quantize(model, digits.dataset().x_train[:CALIBRATION])


def _trained() -> Model:
    """A network that only adds, trained on the digits."""
    data, recipe, model = digits.dataset(), find(RECIPE), zoo.build(NETWORK)
    model.preprocessing = data.preprocessing(recipe.data.normalization(data))
    print(f"training {NETWORK} on {len(data.x_train):,} digits, about half a minute", flush=True)
    model.fit(data.x_train, data.y_train, data.x_test, data.y_test, **recipe.arguments())
    return model
