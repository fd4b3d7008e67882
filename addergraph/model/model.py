"""A network with its weights: declare, train, evaluate, predict, save.

model = Model(loss_name="cat_cross_entropy")           # layer by layer
model.add(layers.Adder(16, kernel_size=3, padding=1))
...
model = Model(net, input_shape=(8, 8, 1))              # or a function of symbolic tensors

history = model.fit(x, y, x_val, y_val, epochs=20, batch_size=64, learning_rate=0.1)
model.evaluate(x, y); model.predict(x); model.save("m.safetensors")
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never

from .. import border, compiler
from ..data.preprocessing import Preprocessing
from ..errors import AdderGraphError, DataError, GraphError, ShapeError, UnsupportedError
from ..files import storage
from ..habits import Missing, require_none
from ..ir import Array, Graph
from ..ir.attributes import FULL_PRECISION
from ..ir.graph import WORD
from ..ir.state import assign, bind_weights, initial_weights
from ..ir.trace import Tensor, argument_names, trace
from ..ir.types import Dim, TensorType, f32
from ..layers import Layer
from ..layers.descriptions import describe
from ..settings import integer, settings_of
from ..training.callbacks import Callback
from ..training.fit import fit
from ..training.labels import count_of, require_trainable, targets_for
from ..training.logs import History
from ..training.objective import objective_of
from ..training.optimizers import Optimizer
from ..training.replicas import Communicator
from ..training.settings import DEFAULT_OPTIMIZER, Fit, Rate
from ..training.step import TrainStep
from ..training.trainee import Losses, Weights
from ..training.validation import Observer, measure
from .changes import Changeable
from .minimizing import Minimizing
from .predictor import CHUNK as CHUNK
from .predictor import Predictor
from .programs import Programs
from .replay import Replay
from .samples import Shapes, require_network, shapes_of, stated_shapes, told, warn_of_bytes
from .transfer import transferred

if TYPE_CHECKING:
    from ..data import Augment, Normalize

NO_TRAINING_FORM = (
    "this model was built from a Python function whose training form does not follow from its "
    "inference graph, so that its file does not hold it: it can predict and evaluate. To train on, "
    "declare Model(net, ...)"
)


class Model(Predictor, Minimizing, Changeable):
    """A network of layers (`add`) or a traced function (`net`), and its weights.

        net          a function of symbolic tensors, its inputs, that returns one or several: a
                     tuple, or a dict by the names of the outputs; None to `add` layers
        input_shape  of one sample, as (8, 8, 1); of several inputs, a dict of shapes by name, or a
                     tuple of them in order. Taken from the data by `fit` unless given
        loss         "cat_cross_entropy" (the default), "binary_cross_entropy",
                     "mean_squared_error", "mean_absolute_error" or "huber"; or a function of
                     symbolic predictions and targets, both f32[N,...], that gives a loss for each
                     sample, f32[N], or one, f32[]. `loss_name` is another name of this setting.
                     Of several outputs it is the loss of each, or there is a dict by name or a
                     tuple in order, and what is minimized is their sum
        loss_weights the factors of that sum, by name or in order; 1 where nothing is said
        seed         of the initial weights, which depend on it and on the parameters' names
        preprocessing  what a pixel is (docs/preprocessing.md); `fit` fills it in where it can

    Raises GraphError for an unknown loss, a name that is no word, or a function that does not name
    its inputs, as one of `*tensors`; ShapeError for an impossible input_shape, DataError for a
    negative seed or a preprocessing of other channels.
    """

    compile = Missing("Model(loss=...) has the loss, fit(optimizer=...) the optimizer")
    trainable = Missing('model.freeze("*") and model.unfreeze("*") say what is trained')
    save_weights = Missing("model.save(path) writes them with the network, Model.load reads both")
    get_layer = Missing("model.layers are those that were added, model.weights has all parameters")
    stop_training = Missing("a callback has it, to end a run by self.stop_training = True")

    def __init__(
        self,
        net: Callable[..., Any] | None = None,
        *,
        input_shape: object = None,
        loss: Losses | None = None,
        loss_name: str | None = None,
        loss_weights: Weights | None = None,
        name: str = "model",
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        Minimizing.__init__(self, loss, loss_name, loss_weights)
        if not isinstance(name, str) or not WORD.fullmatch(name):
            raise GraphError(f"a model's name is one word, a letter first, found {name!r}")
        if net is not None and not callable(net):
            found = border.shown(net)
            raise GraphError(f"Model(net): expected a function of a symbolic tensor, found {found}")
        self.name, self.seed = name, integer("seed", seed, 0)
        self.layers: list[Layer] = []
        self._net = net
        self._stored: Graph | None = None  # of a loaded function model, with its training form
        self._replay: Replay | None = None
        names = self._input_names()
        self._input_shapes: Shapes | None = None
        if input_shape is not None:
            self._input_shapes = stated_shapes(input_shape, names)
        self._weights: dict[str, Array] | None = None
        self._graphs: dict[tuple[bool, int | None], Graph] = {}
        Predictor.__init__(self, preprocessing)

    # --- structure ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        known = self._input_shapes
        shape = "any samples" if known is None else f"samples {told(known)}"
        has = ["a function" if self._net or self._stored else f"{len(self.layers)} layers"]
        if graph := self._known_graph():
            shape += f" -> {told(shapes_of(graph.outputs))}"
            has.append(f"{sum(p.type.elements for p in graph.parameters):,} parameters")
        return f'<Model "{self.name}" of {shape}: {", ".join(has)}, {self._loss_text()}>'

    def _known_graph(self) -> Graph | None:
        """The inference graph, as far as it is known without a call of a function of the user's."""
        if self._net is not None and (False, None) not in self._graphs:
            return None
        try:
            return self.graph(training=False)
        except AdderGraphError:  # no shape yet, or layers that do not fit
            return None

    def add(self, layer: Layer) -> None:
        """Appends a layer. GraphError for anything else, and once the model has weights."""
        if self._net is not None or self._stored is not None:
            raise GraphError("this model is a function; layers can be added to Model() only")
        if self._weights is not None:
            raise GraphError(
                f"this model is built already; add {border.shown(layer)} before fit or build"
            )
        if not isinstance(layer, Layer):
            raise GraphError(
                "Model.add: expected a layer such as layers.Activation('relu'), found "
                f"{border.shown(layer)}"
            )
        describe([layer])
        self.layers.append(layer)
        self._graphs.clear()

    def build(self, input_shape: object) -> None:
        """Fixes the shape of a sample, as `Model(input_shape=)` takes it, and draws the initial
        weights. `fit` does it by itself.

        Raises ShapeError, naming the layer, where the layers do not fit; GraphError for a model
        without layers, an input that reaches no output, and a loss for an unknown output.
        """
        shapes, before = stated_shapes(input_shape, self._input_names()), self._input_shapes
        if before not in (None, shapes):
            raise ShapeError(f"the model takes samples of shape {told(before)}, not {told(shapes)}")
        if self._weights is not None:
            return
        if self._preprocessing is not None:
            self._preprocessing.input_of(shapes)
        self._input_shapes = shapes
        try:
            graph = self.graph(training=False)
            self._freezing.require_known(graph)
            objective_of(self)
            self._weights = initial_weights(graph, self.seed)
        except AdderGraphError:
            self._input_shapes = before
            raise

    def _input_names(self) -> list[str]:
        if self._stored is not None:
            return [v.name for v in self._stored.inputs]
        return argument_names(self._net or self._sequence)

    @property
    def weights(self) -> dict[str, Array]:
        """Parameter name -> array, running statistics included.

        The arrays are the model's own (after training: views of the program's memory), so writing
        into them changes the model. Assigning a dict copies it in: every parameter and no other, or
        DataError or ShapeError and no change.
        """
        if self._weights is None:
            self.build(self.input_shapes)
        assert self._weights is not None
        self._programs.handed_out()
        return self._weights

    @weights.setter
    def weights(self, values: Mapping[str, Array]) -> None:
        graph = self.graph(training=False)
        values = border.mapping("weights", values)
        unknown = sorted(values.keys() - {p.name for p in graph.parameters})
        if unknown:
            raise DataError(f'model "{self.name}" has no parameter named "{unknown[0]}"')
        arrays = bind_weights(f'model "{self.name}"', graph.parameters, values)
        self._programs.handed_out()
        if self._weights is None:
            self._weights = {name: array.copy() for name, array in arrays.items()}
            return
        assign(self._weights, arrays)

    def restore(
        self, graph: Graph, replay: Replay | None = None, input_shape: object = None
    ) -> None:
        """Makes `graph`, read from a file, the network. It can train on where there is what
        builds it again in either form.

        GraphError unless it is a network with an open batch for samples of `input_shape`, the
        model's unless given.
        """
        require_network(border.plain(Graph, "graph", graph, GraphError))
        names = [v.name for v in graph.inputs]
        said = self.input_shapes if input_shape is None else stated_shapes(input_shape, names)
        expected = [TensorType(f32, ("N", *shape)) for shape in said.values()]
        if (found := [v.type for v in graph.inputs]) != expected:
            found_text, wanted = (", ".join(map(str, types)) for types in (found, expected))
            raise GraphError(f'"{graph.name}" takes {found_text}, expected {wanted}')
        self._replay = border.plain(Replay | None, "replay", replay, GraphError)
        self._stored, self._input_shapes = graph, shapes_of(graph.inputs)

    def attach(self, views: dict[str, Array]) -> None:
        """Makes `views`, one for each parameter, the weights themselves (no copy).

        DataError or ShapeError, as for `weights`, where they do not fit.
        """
        bind_weights(f'model "{self.name}"', self.graph(training=False).parameters, views)
        self._programs.handed_out()
        self._weights = views

    def graph(self, training: bool, batch: int | None = None) -> Graph:
        """The network as a graph; `batch` binds N, which training needs where layers count.

        Raises ShapeError, naming the layer, where shapes do not fit; GraphError for a network
        without an f32 result a sample; UnsupportedError for the training form of a function model
        that was loaded from a file.
        """
        key = (border.flag("training", training), border.plain(int | None, "batch", batch))
        if key not in self._graphs:
            self._graphs[key] = self._changed(self._trace(training, batch))
        return self._graphs[key]

    def with_classes(
        self, count: int, *, names: Sequence[str] | None = None, seed: int | None = None
    ) -> Model:
        """A copy for `count` other classes: the same weights, but for the last dense (or adder
        dense) layer and what follows it, which begin again and are not frozen.

            names  of the classes, for the preprocessing, which is otherwise kept
            seed   of the new weights; the model's unless given

        Raises UnsupportedError where no dense layer makes the answers, for a model that rounds, and
        for one of a function whose training form does not follow from its graph; DataError for
        another number of names.
        """
        return transferred(self, count, names, seed)

    def derived(self, network: Sequence[Layer] | Graph, replay: Replay | None = None) -> Model:
        """A copy, with weights drawn anew, of other layers; or of another inference graph, with
        what builds it again."""
        made = copy.copy(self)
        made._weights, made._entry = None, None
        if isinstance(network, Graph):
            made._net, made._bounds = None, {}  # the graph has its bounds
            made.restore(network, replay)
            return made
        made.layers = []
        for layer in border.plain(Sequence[Layer], "network", network, GraphError):
            made.add(layer)
        return made

    def __getstate__(self) -> dict[str, Any]:
        """What a copy has, by `copy`, pickle or joblib: weights of its own. It compiles again."""
        made = vars(self) | {"layers": [*self.layers], "_graphs": {}, "_entry": None}
        made |= {"_programs": Programs(), "_in_fit": False}
        if self._weights is not None:
            made["_weights"] = {name: array.copy() for name, array in self._weights.items()}
        return made

    def _trace(self, training: bool, batch: int | None) -> Graph:
        if self._stored is not None and training and self._replay is None:
            raise UnsupportedError(
                f"{NO_TRAINING_FORM} again and assign its weights: model.weights = loaded.weights"
            )
        if self._stored is not None and not training:
            stored = self._freezing.of_graph(self._stored)
            return stored if batch is None else stored.bind(batch)
        if self._net is None and self._stored is None and not self.layers:
            raise GraphError("the model has no layers: call model.add(layer) or use Model(net)")
        size: Dim = "N" if batch is None else batch
        types = [TensorType(f32, (size, *shape)) for shape in self.input_shapes.values()]
        net = self._freezing.tracing(self._net or self._replay or self._sequence)
        graph = trace(net, *types, name=self.name, training=training)
        require_network(graph)
        return graph

    def _sequence(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    # --- training -------------------------------------------------------------------------------

    def fit(
        self,
        x: object,
        y: object,
        x_val: object = None,
        y_val: object = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        learning_rate: Rate = 0.1,
        optimizer: Optimizer = DEFAULT_OPTIMIZER,
        label_smoothing: float = 0.0,
        gradient: str = FULL_PRECISION,
        augment: Augment | None = None,
        normalize: Normalize | None = None,
        shuffle: bool = True,
        seed: int = 0,
        patience: int = 0,
        keep_best: bool = False,
        batch_norm_samples: int = 1024,
        sparsity: float = 0.0,
        sparsity_end: float = 0.5,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_steps: int = 0,
        resume: bool = False,
        engine: str = "native",
        threads: int | None = None,
        deterministic: int = 0,
        batch_statistics: str = "local",
        communicator: Communicator | None = None,
        verbose: int = 1,
        callbacks: Sequence[Callback] = (),
        **others: Never,
    ) -> History:
        """Trains on `x` (a sample a row, u8 or real numbers) and `y`: integer labels [N] or [N,1],
        one-hot rows [N,T], or for mean_squared_error any values of the shape of the answers. Of
        several inputs or outputs, a dict of these by name, or a tuple in order; `augment` and
        `normalize` are then of the input that takes images, and the history has `<output>_loss`
        and `<output>_accuracy`.

            learning_rate    a number, a description of `training.schedules`, or a function of the
                             epoch (from 0)
            label_smoothing  see `training/losses.py`
            gradient         of adder layers: "full_precision" (with HardTanh) or "sign"
            augment          random changes of each batch's images
            normalize        of all images, also `x_val`; it becomes part of `preprocessing`
            seed             of the order of the samples, of `augment`, of what dropouts leave out
            patience         stop after so many epochs without a better one; 0 for never
            keep_best        end with the weights of the best epoch: by val_accuracy, val_loss, loss
            batch_norm_samples  about how many training samples batch norms estimate their
                             statistics by, before each validation and at the end; 0 leaves the
                             running ones (`training/statistics.py`)
            sparsity         share of the taps of 2-D adder layers behind a relu that shall need no
                             work, reached at `sparsity_end` of the run (`training/sparsity.py`)
            checkpoint       folder for log.csv, log.jsonl, best.safetensors, and a checkpoint after
                             every epoch and every `checkpoint_steps` steps
            resume           go on from the checkpoint there, if there is one, bit for bit
            engine           "reference" runs the same step in NumPy
            threads          all processors unless given; results do not depend on it
            deterministic    parts of a batch, added in order: the bits are those of any number of
                             processes that divides it; 0 is a part a process
            batch_statistics of several parts: "local", each its own, or "synchronized"
            communicator     of mpi4py: its processes share each batch (docs/scaling.md)
            callbacks        code of your own; see `training/callbacks.py`

        Warns of what is provably dead (RangeWarning) and of samples far beyond the scale of the
        filters (DataWarning). Raises DataError for data or settings that do
        not fit and when training diverges (the weights are then those of the last good epoch),
        StorageError for a folder that cannot be used, ShapeError for batch statistics of one value,
        MemoryLimitError, ProcessError of another process. DataError for `others`, no arguments.
        """
        require_none(others, settings_of(Fit))
        settings = Fit(
            epochs=epochs, batch_size=batch_size, learning_rate=learning_rate,
            optimizer=optimizer, label_smoothing=label_smoothing, gradient=gradient,
            augment=augment, normalize=normalize, shuffle=shuffle, seed=seed, patience=patience,
            keep_best=keep_best, batch_norm_samples=batch_norm_samples, sparsity=sparsity,
            sparsity_end=sparsity_end, checkpoint=checkpoint, checkpoint_steps=checkpoint_steps,
            resume=resume, engine=engine, threads=threads, deterministic=deterministic,
            batch_statistics=batch_statistics, communicator=communicator, verbose=verbose,
            callbacks=callbacks,
        )  # fmt: skip
        running, self._in_fit = self._in_fit, True
        try:
            return fit(self, self.inputs(x, known=False), y, (x_val, y_val), settings)
        finally:
            self._in_fit = running

    def train_step(
        self,
        batch: int,
        *,
        optimizer: Optimizer = DEFAULT_OPTIMIZER,
        label_smoothing: float = 0.0,
        gradient: str = FULL_PRECISION,
        seed: int = 0,
        engine: str = "native",
        threads: int | None = None,
    ) -> TrainStep:
        """One training step for loops of your own, compiled for `batch` samples (and for others
        when they come): `loss, prediction = step(x, y, learning_rate)` updates `weights`. It takes
        samples as the layers do: `model.entering(images)`. `seed` is that of what dropouts leave
        out.
        """
        return TrainStep(
            self, batch, optimizer, label_smoothing=label_smoothing, gradient=gradient,
            engine=engine, threads=threads, seed=seed,
        )  # fmt: skip

    # --- inference ------------------------------------------------------------------------------

    def evaluate(
        self,
        x: object,
        y: object,
        *,
        engine: str = "native",
        threads: int | None = None,
        observe: Observer | None = None,
    ) -> dict[str, float]:
        """`{"loss": ..., "accuracy": ...}` on data as `fit` takes it, in inference form.

        There is an accuracy where the targets are classes; of several outputs there are the loss,
        `<output>_loss` and `<output>_accuracy`. `observe(rows, answers)` is called with
        a slice of the samples and what the network answers to these. Raises DataError as `fit`
        does.
        """
        inputs = self.inputs(x)
        warn_of_bytes(inputs, self._preprocessing)
        require_trainable(inputs)
        observe = border.plain(Observer | None, "observe", observe)
        targets = targets_for(self, y, count_of(inputs))
        return measure(self, inputs, targets, engine, threads, observe)

    # --- description and files ------------------------------------------------------------------

    def summary(self) -> None:
        """Prints `summary_text()`."""
        print(self.summary_text())

    def summary_text(self) -> str:
        """Tables of the network: shapes, parameters and arithmetic of one sample, node by node;
        memory, energy by kind of layer, and what `lints.lint` finds. Needs no data, only
        `input_shape`.
        """
        from ..report.lints import lint
        from ..report.summary import summary_text

        graph = self.graph(training=False)
        arena = compiler.arena_bytes(graph, self._weights)
        return summary_text(graph, lint(graph), self._weights, arena, self.training_only())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model to one safetensors file, atomically; StorageError where it cannot."""
        from .file import metadata_of

        storage.save(path, self.weights, metadata_of(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, loss: Losses | None = None) -> Model:
        """The model that `save` wrote. Runs no code from the file and imports no module.

        `loss` replaces the file's, which has the names of losses and no functions: a model with one
        predicts, and `evaluate` gives the accuracy alone, until its loss is there again.
        It can train on, unless it is of a function whose two forms differ in more than batch norms.
        Raises StorageError, naming the file, when it is damaged or no model file.
        """
        from .file import load_model

        made = load_model(cls, path)
        made.loss = made.loss if loss is None else loss
        return made
