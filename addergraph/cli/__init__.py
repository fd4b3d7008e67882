"""The command line. `main.py` has the options, `commands/` what the commands do."""
