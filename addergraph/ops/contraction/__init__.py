"""Sums over a window or a row: adders, convolutions, dense layers, and their gradient ops."""
