"""Native code against the NumPy reference: outputs, single layers, and what rounding explains."""
