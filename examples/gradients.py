"""Reading a gradient plot: a network that learns, and one whose gradients have vanished.

    python examples/gradients.py --output build/gradients

Three pictures of each network's first steps. Look at

* healthy-sizes.png: the lines keep their order and fall slowly together. The adders lie a hundred
  times below the layers that multiply: their filter gradient sums differences of values that
  the next batch norm divides by a large deviation. This is why the paper gives them an adaptive
  learning rate, and no sign of trouble.
* healthy-values.png: bands around 0 that stay open. A band that closes for good is a layer that
  no longer learns; one that grows from step to step will diverge.
* dead-values.png: the deck's own listing. Its relu comes straight after an adder, whose results are
  never positive, so nothing passes: 0 at every step. The printed findings name layer and fix.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from addergraph import zoo
from addergraph.data import digits
from addergraph.diagnostics import Recording, pictures, plots, record_gradients, vanished
from addergraph.report.lints import lint


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=4, help="record once in so many steps")
    parser.add_argument("--output", type=Path, default=Path("build/gradients"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    pictures.require_picture(options.output / "healthy-values.png")

    data = digits.load()
    settings = Recording(options.steps, options.every, learning_rate=0.05)
    for name, network in (("healthy", "small-adder"), ("dead", "deck")):
        model = zoo.build(network)
        history = record_gradients(model, data.x_train, data.y_train, settings)
        values = options.output / f"{name}-values.png"
        sizes = options.output / f"{name}-sizes.png"
        pictures.save(plots.plot_gradients(history), values)
        pictures.save(plots.plot_gradient_norms(history), sizes)
        print(f"{network}: wrote {values} and {sizes}")
        for layer in history.names:
            first, last = history.rms[layer][0], history.rms[layer][-1]
            print(f"  {layer:<10} root mean square {first:.1e} -> {last:.1e}")
        for finding in (*lint(model.graph(training=False)), *vanished(history)):
            print(f"  warning: {finding}")


if __name__ == "__main__":
    main()
