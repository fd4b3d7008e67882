"""From a planned graph to LLVM IR: the builder, index arithmetic, the module."""
