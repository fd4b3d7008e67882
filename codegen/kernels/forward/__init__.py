"""Forward contractions: what their kernels are put together from, the dense one, and the choice.

    geometry.py      sizes and strides of a layer, which its gradients read, too
    terms.py         what is summed: distances, minima or products, of f32 or of bytes
    packing.py       the packed filter: one description for NumPy and for emitted code
    steps.py         how the sums of a register tile are made of it: dense_f32.py, dense_u8.py
    window_sums.py   the sums of x that minima of f32 need beside
    tail.py          what happens between a sum and the store: bias, fused pointwise nodes
    dense.py         the loop nest: DenseKernel = term + packing + steps + tail
    depthwise.py     the kernel of layers with a filter for each channel, on lanes of channels
    choice.py        depthwise, dense or sparse (../sparse/), and which tile

The kernel of an `adder2d` is DenseKernel, of f32 with FloatSteps and of bytes with ByteSteps; where
its filter is constant and has zeros, SparseAdderKernel or SparseU8Kernel of ../sparse/ may serve
it, and DepthwiseKernel where each group has one channel. Its gradients are ../gradient/input.py and
filter.py, or depthwise.py there. All cut their work by ../cut.py.
"""
