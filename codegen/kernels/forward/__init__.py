"""Forward contractions: dense kernels, and the choice between them and the sparse ones."""
