"""Compiled programs in this process."""
