"""`addergraph bench`: networks and layers timed, tables and pictures of them."""
