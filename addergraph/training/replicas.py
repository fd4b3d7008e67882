"""The processes of one training run, and what they exchange.

A batch is cut into *parts*, which are equal but for one sample: one a process, or a fixed number of
which each process has as many. `Replicas` is all that the rest of training knows of it. Messages
are arrays and JSON; nothing is unpickled. What is exchanged:

    at the start   what each process works on (`agree`), then the state of process 1 (`share`)
    a step         the means of gradients and of running statistics, in buckets (`begin`, `during`,
                   `finish`), and the number of right answers (`total`); with synchronized
                   statistics also those (`mean`)
    at a failure   a message to every other process (`tell`), which they look for while they wait

Any object serves as a communicator that has the methods of an mpi4py `Comm` that are called here:
Idup, Free, Get_rank, Get_size, Iallreduce, Iallgather, Ibcast, Isend, Iprobe, Recv.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ClassVar, Protocol, Self

import numpy as np

from .. import border
from ..errors import DataError, ProcessError
from ..ir import Array
from ..processors import usable_processors

PATIENCE = 1800.0  # seconds to wait for another process, which may be compiling
SPINS, PAUSE = 200, 2e-5  # tests of a request before the first pause; seconds
BESIDE = 5e-3  # seconds between two looks at exchanges while a step is computed: 1 % of a core
TAG, MOST_TOLD = 16001, 2048  # of the message of a failure; its bytes
MOST_PARTS = 1024
_CALLED = (
    "Idup", "Free", "Get_rank", "Get_size", "Iallreduce", "Iallgather", "Ibcast", "Isend", "Iprobe",
    "Recv",
)  # fmt: skip


class Communicator(Protocol):
    """What is called of an `mpi4py.MPI.Comm`."""

    def Idup(self) -> tuple[Any, Any]: ...
    def Free(self) -> None: ...
    def Get_rank(self) -> int: ...
    def Get_size(self) -> int: ...
    def Iallreduce(self, sendbuf: Any, recvbuf: Any) -> Any: ...
    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> Any: ...
    def Ibcast(self, buf: Any, root: int) -> Any: ...
    def Isend(self, buf: Any, dest: int, tag: int) -> Any: ...
    def Iprobe(self, source: int, tag: int) -> bool: ...
    def Recv(self, buf: Any, source: int, tag: int) -> None: ...


def require_communicator(value: object) -> Communicator | None:
    """DataError for anything but None and what has the methods of a communicator."""
    lacking = [name for name in _CALLED if not callable(getattr(value, name, None))]
    if value is None or not lacking:
        return value  # type: ignore[return-value]
    raise DataError(
        f"communicator={border.shown(value)}: expected one of mpi4py, such as MPI.COMM_WORLD; it "
        f"has no method {lacking[0]}"
    )


class Exchange:
    """One that is under way. Nobody may use its buffers, nor `out`, before `Replicas.finish`.

    What has begun stays in memory until its messages are here, also where a step is interrupted:
    MPI would write them elsewhere.
    """

    _open: ClassVar[list[Exchange]] = []

    def __init__(self, request: Any, buffers: Sequence[Array], finish: Callable[[], None]) -> None:
        self._request, self._buffers, self.finish = request, buffers, finish
        if request is not None:
            self._open.append(self)

    @property
    def request(self) -> Any:
        """Of MPI; None when the messages are here."""
        return self._request

    def test(self) -> bool:
        """Whether its messages are here. MPI moves them inside of such calls."""
        if self._request is not None and self._request.Test():
            self.arrived()
        return self._request is None

    def arrived(self) -> None:
        if self._request is not None:
            self._request = None
            self._open.remove(self)


class Replicas:
    """The processes that share the batches of a run; a context manager, which tells the others when
    an error ends this one.

    rank, size   the number of this process, and how many there are; rank 0 is process 1 in texts
    parts        of a batch; `own` are those of this process, in order
    ordered      whether sums are taken in the order of the parts, so that bits depend on `parts`
                 and not on `size`

    Every method but `tell` has to be called by all processes, in the same order. ProcessError where
    another process has failed, or does not come within `patience` seconds. DataError for more
    processes than parts, or parts that cannot be dealt out evenly.
    """

    def __init__(
        self, communicator: Communicator | None, parts: int = 0, patience: float = PATIENCE
    ) -> None:
        self._given, self.patience = communicator, patience
        self.rank = 0 if communicator is None else int(communicator.Get_rank())
        self.size = 1 if communicator is None else int(communicator.Get_size())
        self.parts, self.ordered = parts or self.size, parts > 0
        self._sent: list[Any] = []
        self._comm: Communicator | None = None
        self._beside: ThreadPoolExecutor | None = None
        if communicator is not None:  # of our own, so that nobody else's calls come between
            self._comm, request = communicator.Idup()
            self._wait(request)
        if self.parts % self.size:
            self._release()
            raise DataError(
                f"{self.size} processes cannot have as many each of {self.parts} parts of a batch: "
                f"give deterministic a multiple of {self.size}, or leave it out"
            )
        each = self.parts // self.size
        self.own = range(self.rank * each, (self.rank + 1) * each)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints, and writes files."""
        return self.rank == 0

    @property
    def communicator(self) -> Communicator | None:
        """The one that was given; messages of failures go over it, also to a run that is not inside
        of the same `Replicas`."""
        return self._given

    @property
    def called(self) -> str:
        return f"process {self.rank + 1} of {self.size}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self._beside is not None:
            self._beside.shutdown(wait=False)
            self._beside = None
        if error is None:
            self._release()
        elif not isinstance(error, ProcessError) and not getattr(error, "was_told", False):
            self.tell(str(error) or "it was interrupted")
            vars(error)["was_told"] = True

    def _release(self) -> None:
        if self._comm is not None:
            self._comm.Free()
            self._comm = None

    def threads(self, asked: int | None) -> int | None:
        """How many threads this process uses: as asked for, or its share of the processors where
        processes of this machine may use the same ones."""
        if asked is not None or self._comm is None:
            return asked
        used = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "all"
        mine = f"{platform.node()} {used}".encode()
        digest = np.frombuffer(hashlib.sha256(mine).digest(), np.uint8)
        alike = int((self.gather(digest) == digest).all(axis=1).sum())
        return max(1, usable_processors() // alike)

    # --- what a process has of a batch ------------------------------------------------------------

    def bounds(self, samples: int) -> list[int]:
        """Where the parts of so many samples begin, and the end."""
        return [samples * part // self.parts for part in range(self.parts + 1)]

    def rows(self, samples: int, rank: int | None = None) -> slice:
        """The samples, of so many, of this process or of another `rank`: those of its parts."""
        rank = self.rank if rank is None else rank
        return slice(samples * rank // self.size, samples * (rank + 1) // self.size)

    def sizes(self, samples: int) -> list[int]:
        """Samples of each part of this process."""
        bounds = self.bounds(samples)
        return [bounds[part + 1] - bounds[part] for part in self.own]

    def shares(self, samples: int) -> Array:
        """f32[parts]: of each part its share in so many samples."""
        return (np.diff(self.bounds(samples)) / samples).astype(np.float32)

    # --- exchanges --------------------------------------------------------------------------------

    def mean(self, vectors: Sequence[Array], shares: Array, out: Array) -> None:
        """out f32[n] = sum over all parts of share times vector, from those of this process, f32[n]
        each. `ordered`: added one after the other, from the first part on."""
        self.finish(self.begin(vectors, shares, out))

    def begin(self, vectors: Sequence[Array], shares: Array, out: Array) -> Exchange:
        """Starts what `mean` does; `out` is there after `finish`. The vectors are read at once, or,
        by the only process, in `finish`."""
        own = [shares[part] for part in self.own]
        if self._comm is None or self.size == 1:
            scaled = (vector * share for vector, share in zip(vectors, own, strict=True))
            return Exchange(None, (), lambda: self._sum(scaled, out))
        mine = np.empty((len(vectors), len(out)), np.float32)
        for row, vector, share in zip(mine, vectors, own, strict=True):
            np.multiply(vector, share, out=row)
        if not self.ordered and self.size > 2:
            return Exchange(self._comm.Iallreduce(mine[0], out), (mine, out), lambda: None)
        # Of two processes this moves half of what a reduction does.
        every = np.empty((self.size, *mine.shape), np.float32)
        request, rows = self._comm.Iallgather(mine, every), every.reshape(self.parts, -1)
        return Exchange(request, (mine, every), lambda: self._sum(rows, out))

    def during(self, work: Callable[[], None], look: Callable[[], object]) -> None:
        """Does `work`, which calls no MPI, on another thread, and calls `look` in this one now and
        then until it is done: so all calls of MPI come from one thread."""
        if self._beside is None:
            self._beside = ThreadPoolExecutor(1, "addergraph-step")
        done, over = self._beside.submit(copy_context().run, work), threading.Event()
        done.add_done_callback(lambda _: over.set())
        try:
            while not over.wait(BESIDE):
                look()
        finally:  # an interrupted step ends before it is left, unless it is interrupted again
            wait([done])
        done.result()

    def finish(self, exchange: Exchange) -> None:
        """Waits until the result is there."""
        if exchange.request is not None:
            self._wait(exchange.request)
            exchange.arrived()
        exchange.finish()

    @staticmethod
    def _sum(vectors: Iterable[Array], out: Array) -> None:
        """In order, from the first one on."""
        for number, vector in enumerate(vectors):
            if number == 0:
                out[...] = vector
            else:
                out += vector

    def gather(self, array: Array) -> Array:
        """[size, ...]: the array of each process, all of one shape and dtype."""
        array = np.ascontiguousarray(array)
        if self._comm is None:
            return array[None]
        every = np.empty((self.size, *array.shape), array.dtype)
        self._wait(self._comm.Iallgather(array, every))
        return every

    def total(self, numbers: Mapping[str, int]) -> dict[str, int]:
        """The sums over the processes, by name."""
        if self._comm is None or not numbers:
            return dict(numbers)
        sums = self.gather(np.array([*numbers.values()], np.int64)).sum(axis=0)
        return dict(zip(numbers, map(int, sums), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is true for any process."""
        return bool(self.gather(np.array([flag], np.uint8)).any())

    def concatenated(self, rows: Array, count: int) -> Array:
        """The rows of all processes one behind the other, `count` in all, where each has its
        `rows` of them."""
        if self._comm is None:
            return rows
        most = -(-count // self.size)
        padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
        padded[: len(rows)] = rows
        every, spans = self.gather(padded), (self.rows(count, r) for r in range(self.size))
        return np.concatenate(
            [one[: s.stop - s.start] for one, s in zip(every, spans, strict=True)]
        )

    def share(self, array: Array) -> None:
        """Gives every process the numbers that process 1 has in this array."""
        if self._comm is not None:
            self._wait(self._comm.Ibcast(array.reshape(-1).view(np.uint8), 0))

    def shared(self, value: Any) -> Any:
        """What JSON makes of the value of process 1."""
        if self._comm is None:
            return value
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).copy()
        length = np.array([len(text)], np.int64)
        self.share(length)
        text = text if self.is_first else np.empty(int(length[0]), np.uint8)
        self.share(text)
        return json.loads(text.tobytes())

    def agree(self, facts: Mapping[str, str]) -> None:
        """ProcessError, in every process, where one has other facts than process 1."""
        if self._comm is None:
            return
        text = json.dumps(dict(facts)).encode()
        length = int(self.gather(np.array([len(text)], np.int64)).max())
        raw = np.frombuffer(text.ljust(length), np.uint8)
        ours, *others = (json.loads(row.tobytes()) for row in self.gather(raw))
        for number, theirs in enumerate(others, 2):
            for name in ours | theirs:
                one, other = ours.get(name), theirs.get(name)
                if one == other:
                    continue
                raise ProcessError(
                    f"the processes of this run differ in {name}: process 1 has {one}, process "
                    f"{number} of {self.size} has {other}. All of them need the same program, data "
                    "and settings; each takes its part of every batch by itself"
                )

    # --- failures ---------------------------------------------------------------------------------

    def tell(self, message: str) -> None:
        """Tells the other processes that this one has failed. It waits for nobody."""
        if self._given is None:
            return
        told = np.zeros(MOST_TOLD, np.uint8)
        raw = message.encode()[:MOST_TOLD]
        told[: len(raw)] = np.frombuffer(raw, np.uint8)
        with suppress(Exception):  # what ends this process is not to be hidden
            others = (r for r in range(self.size) if r != self.rank)
            self._sent = [told, *(self._given.Isend(told, r, TAG) for r in others)]

    def _wait(self, request: Any) -> None:
        """Until an exchange is done, with an eye on the other processes and on signals."""
        started, tests = time.monotonic(), 0
        while not request.Test():
            tests += 1
            if tests < SPINS:
                continue
            time.sleep(PAUSE)  # others need the processor, the loader's thread as well
            if tests % 64 == 0:
                self._look()
                if time.monotonic() - started > self.patience:
                    raise ProcessError(
                        f"{self.called} has waited {self.patience:g} s for another one, which has "
                        "ended, hangs or is as slow as that; see what the others say"
                    )

    def _look(self) -> None:
        """ProcessError where another process has said that it failed."""
        assert self._given is not None
        for other in range(self.size):
            if other == self.rank or not self._given.Iprobe(other, TAG):
                continue
            told = np.zeros(MOST_TOLD, np.uint8)
            self._given.Recv(told, other, TAG)
            said = told.tobytes().rstrip(b"\0").decode(errors="replace")
            raise ProcessError(f"process {other + 1} of {self.size} has ended this run: {said}")
