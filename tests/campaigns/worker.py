"""`python -m tests.campaigns.worker CAMPAIGN`: checks the graphs that are named on its
standard input.

A line "kind seed" asks, a line of JSON answers: counts, or {"error": text}. A graph that ends the
process ends no more than that.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import traceback
import warnings

from addergraph.errors import RangeWarning


def main() -> None:
    checked = importlib.import_module(f"tests.campaigns.{sys.argv[1]}").checked
    faulthandler.enable()
    warnings.simplefilter("ignore", RangeWarning)
    os.environ.setdefault("ADDERGRAPH_MACHINE", "builtin")  # as in the tests
    for line in sys.stdin:
        kind, seed = line.split()
        try:
            answer = checked(kind, int(seed))
        except Exception as error:  # whatever it is, it is what we look for
            shown = "".join(traceback.format_exception(error, limit=-6))
            answer = {"error": f"{error}\n\n{shown}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
