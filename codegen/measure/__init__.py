"""Measuring: the machine's peak, profiles, tuning."""
