"""The slide deck's listing runs as it is written, trains, and is told what is wrong with it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from addergraph.data import digits
from addergraph.errors import RangeWarning

IMPORTS = "from addergraph import Model, layers\n"
LISTING = """\
this_model = Model(loss_name='cat_cross_entropy')
this_model.add(layers.adder_layer(output_channels=8,kernel_size=3,stride=1,padding=1,adaptive_eta=0.1))
this_model.add(layers.Activation('relu'))
this_model.add(layers.MaxPool(pool_size=2))
this_model.add(layers.batch_norm_layer())
this_model.add(layers.Flatten())
this_model.add(layers.FullyConnected(output_channels=64))
this_model.add(layers.Activation('relu'))
this_model.add(layers.FullyConnected(output_channels=10))
this_model.add(layers.Activation('softmax'))
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_the_listing_trains_on_the_digits_and_gets_its_warning(engine: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(IMPORTS + LISTING, "deck", "exec"), names)
    model, data = names["this_model"], digits.load()
    count = len(data.x_train) if engine == "native" else 100
    x, y = data.x_train[:count], data.y_train[:count]
    with pytest.warns(RangeWarning) as warned:
        history = model.fit(x, y, epochs=2, batch_size=64, engine=engine, verbose=0)
    (warning,) = (w for w in warned if "act1" in str(w.message))
    assert 'relu "act1" is always 0' in str(warning.message)  # the layer
    assert "batch norm between" in str(warning.message)  # the fix
    assert warning.filename == __file__  # where the user called fit
    assert 'warning: relu "act1" is always 0' in model.summary_text()
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(array).all() for array in model.weights.values())
    answers = model.predict(data.x_test, engine=engine)
    assert answers.shape == (360, 10)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, atol=1e-5)


def test_the_notebook_has_the_listing() -> None:
    notebook = Path(__file__).parent.parent / "examples" / "deck.py"
    written = {ast.dump(statement) for statement in ast.parse(notebook.read_text()).body}
    assert {ast.dump(statement) for statement in ast.parse(LISTING).body} <= written
