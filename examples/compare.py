"""The deck's comparison: one network with adder layers, and with convolutions in their place.

    python examples/compare.py --output build/compare

Look at the curves (curves.png): the convolutions learn faster in the first epochs; with a learning
rate that falls to 0 both end at the same accuracy. Look at the times: a step takes about as long,
because an adder's gradients cost what a convolution's do. Look at the last lines: only the adder
filters are Laplace-like.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from addergraph import Model, zoo
from addergraph.data import digits
from addergraph.diagnostics import pictures, plots, shape_of
from addergraph.training.schedules import cosine

NETWORKS = ("small-adder", "small-conv")


def train(name: str, data: digits.Digits, epochs: int) -> tuple[Model, dict[str, list[float]]]:
    """The trained network and its curves, with a line of results."""
    model = zoo.build(name)
    step = model.train_step(64)  # compiles, which shall not count
    step(data.x_train[:64], data.y_train[:64], 0.0)
    model = zoo.build(name)
    start = time.perf_counter()
    history = model.fit(
        data.x_train,
        data.y_train,
        data.x_test,
        data.y_test,
        epochs=epochs,
        batch_size=64,
        learning_rate=cosine(0.1, epochs),
        verbose=0,
    ).history
    seconds = time.perf_counter() - start
    accuracy = model.evaluate(data.x_test, data.y_test)["accuracy"]
    speed = epochs * len(data.x_train) / seconds
    print(f"{name:<12} accuracy {accuracy:.4f}  {seconds:6.2f} s  {speed:8,.0f} images/s")
    return model, history


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("build/compare"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "curves.png"
    pictures.require_picture(picture)

    data = digits.load()
    trained = {name: train(name, data, options.epochs) for name in NETWORKS}
    pictures.save(plots.plot_curves({n: history for n, (_, history) in trained.items()}), picture)
    print(f"wrote {picture}")
    for name, (model, _) in trained.items():
        layer = "adder3.f" if name == "small-adder" else "conv4.f"
        shape = shape_of(model.weights[layer])
        print(f"{name}, {layer}: {shape.better.density} fits better" if shape.better else layer)


if __name__ == "__main__":
    main()
