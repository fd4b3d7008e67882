"""Ops that make one element of many, beside the contractions."""
