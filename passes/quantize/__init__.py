"""From a float network to integers: calibration, rules for each op, rounding in training."""
