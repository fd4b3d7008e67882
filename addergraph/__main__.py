"""`python -m addergraph` is the `addergraph` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
