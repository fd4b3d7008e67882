"""Instruction sets and machines, as data."""
