"""Graph + plan -> machine code. The only package that imports llvmlite."""

if __name__ != "addergraph.codegen":
    raise ImportError("import it as addergraph.codegen")
