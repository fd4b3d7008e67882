# %% [markdown]
# # The deck's experiment
#
# The slide deck that this project started from shows a small network of one adder layer, and
# compares adders with convolutions. This page is `examples/deck.py`, run when the site was built;
# it is a notebook as well (jupytext opens it).
#
# ## The listing, as it is written

# %%
# %matplotlib inline
import textwrap
import warnings

from addergraph import Model, layers
from addergraph.data import digits
from addergraph.diagnostics import plots
from addergraph.training.schedules import cosine

this_model = Model(loss_name="cat_cross_entropy")
this_model.add(
    layers.adder_layer(output_channels=8, kernel_size=3, stride=1, padding=1, adaptive_eta=0.1)
)
this_model.add(layers.Activation("relu"))
this_model.add(layers.MaxPool(pool_size=2))
this_model.add(layers.batch_norm_layer())
this_model.add(layers.Flatten())
this_model.add(layers.FullyConnected(output_channels=64))
this_model.add(layers.Activation("relu"))
this_model.add(layers.FullyConnected(output_channels=10))
this_model.add(layers.Activation("softmax"))

# %% [markdown]
# It runs, and learns nothing: the result of an adder layer is minus a distance, so it is never
# above 0, and the relu behind it is always 0. No number is NaN, so nothing but the accuracy tells,
# and the warnings, which name the layer and what to do:

# %%
data = digits.load()  # 8x8 pixels of 0..1
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    this_model.fit(data.x_train, data.y_train, epochs=10, batch_size=64, verbose=0)
for warning in told:
    print(textwrap.fill(f"{warning.category.__name__}: {warning.message}", 86))
print(f"\naccuracy {this_model.evaluate(data.x_test, data.y_test)['accuracy']:.3f}")

# %% [markdown]
# ## With a batch norm before the relu
#
# The same network, once with an adder layer and once with a convolution in its place. Pixels,
# recipe and seed are the same; the learning rate falls to 0 along a cosine.

# %%
EPOCHS = 30


def network(first):
    model = Model(loss_name="cat_cross_entropy")
    rest = (
        layers.BatchNorm(),
        layers.Activation("relu"),
        layers.MaxPool(2),
        layers.Flatten(),
        layers.Dense(64),
        layers.Activation("relu"),
        layers.Dense(10),
        layers.Activation("softmax"),
    )
    for layer in (first, *rest):
        model.add(layer)
    return model


def trained(first):
    model = network(first)
    history = model.fit(
        data.x_train, data.y_train, data.x_test, data.y_test, epochs=EPOCHS, batch_size=64,
        learning_rate=cosine(0.1, EPOCHS), verbose=0,
    )  # fmt: skip
    return model, history.history


adder, adder_curves = trained(layers.Adder(8, kernel_size=3, padding=1, eta=0.1))
conv, conv_curves = trained(layers.Conv(8, kernel_size=3, padding=1))
for name, model in (("adder", adder), ("convolution", conv)):
    print(f"{name:<12} accuracy {model.evaluate(data.x_test, data.y_test)['accuracy']:.4f}")

# %%
plots.plot_curves({"adder": adder_curves, "convolution": conv_curves})

# %% [markdown]
# The dashed lines are the test part. It is measured with the running statistics of the batch norm,
# which lag behind as long as the rate is high: the adaptive rate moves an adder's filter by the
# same distance in every step, however small its gradient is. At the end the two differ by a few of
# 360 images; five seeds with the recipe `digits`, where they are equal, are in the table of
# [training.md](training.md#measured).
#
# ## What an image costs
#
# What is left to multiply are the two dense layers; `zoo.build("all-adder")` has none
# ([networks.md](networks.md)).

# %%
print(adder.summary_text())
