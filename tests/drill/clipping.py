"""Planted bugs in the bounds of activations, and in the models that have them."""

from __future__ import annotations

from .mutant import Mutant, tests_of

HISTOGRAM, CHANGES = "passes/clip_relus.py", "addergraph/model/changes.py"
FILE = "addergraph/test_clipping.py"
QUANTILES = tests_of(
    FILE,
    "test_bounds_are_the_quantiles_of_all_results", "test_quantiles_among_few_and_equal_values",
)  # fmt: skip

MUTANTS = (
    Mutant(
        "a quantile is the lower one of its neighbours", HISTOGRAM,
        "exact = low + step * rest if rest < 0.5 else high - step * (1 - rest)", "exact = low",
        QUANTILES,
    ),
    Mutant(
        "both neighbours of a quantile are in one half", HISTOGRAM,
        "for half in halves}", "for half in halves[:1]}", QUANTILES,
    ),
    Mutant(
        "a rank counts the numbers of its own half twice", HISTOGRAM,
        "place = rank - int(ends[half] - self.upper[half])", "place = rank - int(ends[half])",
        QUANTILES,
    ),
    Mutant(
        "what equals a bound is above it", HISTOGRAM,
        "self.lower[half][low + 1 :]", "self.lower[half][low:]", QUANTILES,
    ),
    Mutant(
        "between two neighbours the upper one is not above", HISTOGRAM,
        "total - 1 - self.ranks[0] if inside", "total - 2 - self.ranks[0] if inside",
        QUANTILES,
    ),
    Mutant(
        "the largest value is that of the last chunk", HISTOGRAM,
        "self.most = max(self.most, most)", "self.most = most", QUANTILES,
    ),
    Mutant(
        "a bound of 0 is taken", HISTOGRAM,
        "if not peak.bound]", "if peak.bound < 0]",
        tests_of(FILE, "test_dead_relus_are_named"),
    ),
    Mutant(
        "a relu of parameters is bounded", CHANGES,
        "if _is_open(n) and n.outputs[0] in reached]", "if _is_open(n)]",
        tests_of(FILE, "test_relus_of_parameters_alone_stay"),
    ),
    Mutant(
        "bounds of a file are forgotten", "addergraph/model/file.py",
        "model = model.bounded(bounds)", "pass",
        tests_of(FILE, "test_it_is_saved_trained_and_exported_as_others"),
    ),
    Mutant(
        "another network's bounds are put where they fit", CHANGES,
        "if names != bounds.keys():", "if not names & bounds.keys():",
        tests_of(FILE, "test_bounds_of_another_network"),
    ),
    Mutant(
        "bounds of an inference graph are put on it once more", "addergraph/model/model.py",
        "made._net, made._bounds = None, {}", "made._net = None",
        tests_of(FILE, "test_a_bounded_function_gets_other_classes"),
    ),
)  # fmt: skip
