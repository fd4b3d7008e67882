"""Ahead of time: libraries for C programs."""
