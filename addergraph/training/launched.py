"""Whether a launcher of MPI started this process, and the communicator of all that it started."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..errors import UnsupportedError
from .replicas import Communicator

INSTALL = "pip install 'addergraph[mpi]'"
# How many processes there are: Open MPI; MPICH and Intel MPI; MVAPICH.
_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes the launcher of this one, such as `mpirun -n 4`, has started; 1 where
    there is none."""
    counts = (environment.get(name, "") for name in _COUNTS)
    return max((int(count) for count in counts if count.isdecimal()), default=1)


def communicator() -> Communicator | None:
    """That of the processes which `mpirun` started; None for a process of its own.

    UnsupportedError where there are others and mpi4py is not installed, finds no library, or one of
    another MPI than the launcher's: each process would train alone, and all write one file.
    """
    expected = processes()
    if expected == 1:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UnsupportedError(
            f"{expected} processes were started by mpirun, and {str(error) or 'mpi4py'} keeps them "
            f"from working together: {INSTALL}, which brings mpi4py and Open MPI with its mpirun"
        ) from None
    found = MPI.COMM_WORLD.Get_size()
    if found != expected:
        raise UnsupportedError(
            f"mpirun started {expected} processes, and mpi4py sees {found}: its library is not "
            f"that of this mpirun ({MPI.Get_library_version().splitlines()[0]}); use the one that "
            f"stands beside this Python, or install both again: {INSTALL}"
        )
    return MPI.COMM_WORLD  # type: ignore[no-any-return,unused-ignore]
