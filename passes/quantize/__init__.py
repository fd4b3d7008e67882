"""From a float network to integers: calibration, one rule an op, and emitters of what rules say.

`integers.py` emits u8 and i32 ops, `rounded.py` the same numbers in f32, for training.
"""
