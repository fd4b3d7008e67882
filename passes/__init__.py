"""Passes: `Graph -> Graph` functions and analyses, one per file. `pipeline.py` has the order."""

if __name__ != "addergraph.passes":
    raise ImportError("import it as addergraph.passes")
