"""What the command line's commands do: plain functions, one module for each kind.

`cli.py` declares options and help, and imports these when a command runs.
"""
