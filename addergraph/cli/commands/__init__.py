"""What the command line's commands do: plain functions, one module for each kind.

`main.py` declares commands and their help, and imports these when a command runs.
"""
