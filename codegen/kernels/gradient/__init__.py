"""Gradients of the contractions."""
