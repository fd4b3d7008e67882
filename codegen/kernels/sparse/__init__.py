"""Forward adders with constant filters that walk lists of the taps above zero.

    sparse_f32.py, sparse_u8.py    the kernels: strips, lists and the tail of ../forward/
    _patches.py                    lanes over patches of the outputs
    _cut.py                        tiles, strips and scratch memory, common to both
    _strips.py                     how strips are shared among threads
    _f32_tile.py, _u8_tile.py      what a tile has beside; _f32_choice.py, _u8_choice.py: which one
    _f32_lists.py, _u8_lists.py    the packed lists and the loops that walk them
    _u8_planes.py                  bytes on their way into planes and back

The choice between these and the dense kernel is ../forward/choice.py.
"""
