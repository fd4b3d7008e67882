"""Communicators without MPI: the threads of one process, by the calls that `Replicas` makes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, Queue
from typing import Any

import numpy as np


class _World:
    def __init__(self, size: int) -> None:
        self.size, self.lock = size, threading.Lock()
        self.calls: dict[int, dict[int, Any]] = {}
        self.mail: dict[tuple[int, int, int], Queue[Any]] = {}


class _Done:
    """Of a call that all have to make: done when all have."""

    def __init__(
        self, world: _World, number: int, finish: Callable[[dict[int, Any]], None]
    ) -> None:
        self._world, self._number, self._finish = world, number, finish

    def Test(self) -> bool:
        found = self._world.calls[self._number]
        if len(found) < self._world.size:
            return False
        self._finish(found)
        return True


class Fake:
    """Process `rank` of a world of threads."""

    def __init__(self, world: _World, rank: int) -> None:
        self.world, self.rank, self.calls = world, rank, 0
        self.made: list[str] = []

    def Idup(self) -> tuple[Fake, _Done]:
        return self, self._call("dup", 0, lambda found: None)

    def Free(self) -> None:
        return

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.world.size

    def _call(self, kind: str, mine: Any, finish: Callable[[dict[int, Any]], None]) -> _Done:
        self.made.append(kind)
        number, self.calls = self.calls, self.calls + 1
        with self.world.lock:
            found = self.world.calls.setdefault(number, {})
            assert all(other[0] == kind for other in found.values()), (kind, found)
            found[self.rank] = kind, np.array(mine)
        return _Done(self.world, number, finish)

    def Iallreduce(self, sendbuf: Any, recvbuf: Any) -> _Done:
        def finish(found: dict[int, Any]) -> None:
            recvbuf[...] = sum((found[r][1] for r in range(1, len(found))), found[0][1].copy())

        return self._call("allreduce", sendbuf, finish)

    def Iallgather(self, sendbuf: Any, recvbuf: Any) -> _Done:
        def finish(found: dict[int, Any]) -> None:
            for rank, (_, array) in found.items():
                recvbuf[rank] = array.reshape(recvbuf[rank].shape)

        return self._call("allgather", sendbuf, finish)

    def Ibcast(self, buf: Any, root: int) -> _Done:
        def finish(found: dict[int, Any]) -> None:
            buf[...] = found[root][1]

        return self._call("bcast", buf, finish)

    def _box(self, source: int, to: int, tag: int) -> Queue[Any]:
        with self.world.lock:
            return self.world.mail.setdefault((source, to, tag), Queue())

    def Isend(self, buf: Any, dest: int, tag: int) -> None:
        self._box(self.rank, dest, tag).put(buf.copy())

    def Iprobe(self, source: int, tag: int) -> bool:
        return not self._box(source, self.rank, tag).empty()

    def Recv(self, buf: Any, source: int, tag: int) -> None:
        try:
            buf[...] = self._box(source, self.rank, tag).get_nowait()
        except Empty:
            raise AssertionError("nothing was sent") from None


def together(size: int, work: Callable[[Fake], Any]) -> list[Any]:
    """What `work` gives in each of so many threads, or the error that ended it."""
    world = _World(size)
    found: list[Any] = [None] * size

    def one(rank: int) -> None:
        try:
            found[rank] = work(Fake(world, rank))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found
