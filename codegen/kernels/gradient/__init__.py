"""Gradients of the contractions: with respect to the input, and to the filter."""
