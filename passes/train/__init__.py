"""A training step as a graph."""
