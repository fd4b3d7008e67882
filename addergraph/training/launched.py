"""Whether a launcher of MPI started this process, and the communicator of all that it started."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ..errors import UnsupportedError
from .replicas import Communicator

INSTALL = "pip install 'addergraph[mpi]'"
# How many processes there are, and which one this is: Open MPI; MPICH and Intel MPI; MVAPICH.
_COUNTS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")


def processes(environment: Mapping[str, str] = os.environ) -> int:
    """How many processes the launcher of this one, such as `mpirun -n 4`, has started; 1 where
    there is none."""
    return _most(environment, _COUNTS, 1)


def rank(environment: Mapping[str, str] = os.environ) -> int:
    """The number of this process among those, from 0; 0 where there is no launcher."""
    return _most(environment, _RANKS, 0)


def _most(environment: Mapping[str, str], names: Sequence[str], default: int) -> int:
    found = (environment.get(name, "") for name in names)
    return max((int(text) for text in found if text.isdecimal()), default=default)


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
