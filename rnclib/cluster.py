"""Jobs on the workers of a Dask scheduler: each result as it comes, and again what a lost worker was at.

This takes Dask's tasks and events, and not joblib's backend for it. Where there is one worker, that backend computes in
the client; and what a job does with joblib itself it gives to all workers, so that two jobs share a process.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Carry", "Job", "carried_out", "scheduler_of"]

#: Does a job on a worker: called with what it is, with what the same worker has done of its chain before, and with a
#: function to tell of work newly done.
Carry = Callable[[Any, list[Any], Callable[[float], None]], Any]

_PATIENCE = 10  # seconds to find the scheduler, and a worker
_TOPIC = "rnclib"  # of the events that say how far jobs are; the scheduler keeps the last thousand


class Job(NamedTuple):
    """Something to do: a name to call it by, how much work it is in any unit, and what it is."""

    name: str
    work: float
    what: Any


def scheduler_of(engine: str | None) -> str | None:
    """Address of the scheduler that an engine means; None for processes of this machine.

    Parameters
    ----------
    engine : str, optional
        See `rnclib.grid.run_grid`.

    Raises
    ------
    ValueError
        If it means neither.

    Examples
    --------
    >>> scheduler_of("loky"), scheduler_of("tcp://10.0.0.1:8786")
    (None, 'tcp://10.0.0.1:8786')
    """
    engine = engine or os.environ.get("RNC_ENGINE") or "loky"
    if engine == "loky":
        return None
    address = os.environ.get("DASK_SCHEDULER_ADDRESS", "") if engine == "dask" else engine
    if not re.fullmatch(r"(tcp|tls)://\S+:\d+", address):
        of = f" with DASK_SCHEDULER_ADDRESS={address!r}" if engine == "dask" else ""
        raise ValueError(
            f"engine: got {engine!r}{of}; allowed: 'loky', the address that `dask scheduler` prints, such as "
            "'tcp://host:8786', or 'dask' with that address in DASK_SCHEDULER_ADDRESS"
        )
    return address


def carried_out(
    address: str, chains: Sequence[Sequence[Job]], carry: Carry, show: Callable[[float, int], None]
) -> Iterator[Any]:
    """Results of all jobs, each as soon as it is there.

    One worker does the jobs of a chain, in their order. What a worker was at when it died another begins again, and
    does the rest of the chain; a job that several workers have died of is given up. A job that nobody waits for any
    longer ends when it next tells of progress.

    Parameters
    ----------
    address : str
        Of the scheduler.
    chains : sequence of sequence of Job
    carry : callable
        See `Carry`.
    show : callable
        Called about once a second, in this process, with the work done and the number of workers.

    Raises
    ------
    ConnectionError
        If there is no such scheduler or no worker, or the scheduler is lost.
    RuntimeError
        If a job fails; the message has the worker, its host, and the error.
    """
    token = f"rnclib-{uuid.uuid4().hex}"  # one group of tasks, which wait at the scheduler until a worker is free
    finished: queue.SimpleQueue[tuple[_Chain, Future]] = queue.SimpleQueue()
    every = [_Chain(jobs, carry, (token, number), finished) for number, jobs in enumerate(filter(None, chains))]

    def hear(event: tuple[float, tuple[str, int, float]]) -> None:
        whose, number, amount = event[1]
        if whose == token:
            every[number].reported = amount

    with _client(address) as client:
        client.subscribe_topic(_TOPIC, hear)
        for chain in every:
            chain.begin(client)
        shown = 0.0
        while any(chain.future for chain in every):
            if time.monotonic() - shown > 1:
                shown, workers = time.monotonic(), _workers(client, address)
                show(sum(chain.done for chain in every), len(workers))
                for chain in every:
                    if chain.worker not in (None, *workers):
                        chain.begin(client, anywhere=True)
            try:
                chain, future = finished.get(timeout=1)
            except queue.Empty:
                continue
            if future is chain.future and (given := _given(future, chain, address)):
                chain.before.append((given[0], chain.job.what))
                chain.begin(client)
                yield given[1]
        show(sum(chain.done for chain in every), len(_workers(client, address)))


@dataclass(eq=False)
class _Chain:
    """Jobs that are done one after the other, at most one of them at a time."""

    jobs: Sequence[Job]
    carry: Carry
    name: tuple[str, int]
    finished: queue.SimpleQueue[tuple[_Chain, Future]]
    before: list[tuple[str, Any]] = field(default_factory=list)  # those that are done, each with its worker
    reported: float = 0.0  # work done of the next one
    worker: str | None = None  # the only one that may do that
    future: Future | None = None

    @property
    def job(self) -> Job:
        """The next one."""
        return self.jobs[len(self.before)]

    @property
    def done(self) -> float:
        """Work done."""
        return sum(job.work for job in self.jobs[: len(self.before)]) + self.reported

    def begin(self, client: Client, anywhere: bool = False) -> None:
        """Hand in the next job, if there is one: to the worker of the one before, which may have what both need."""
        self.future, self.reported, self.worker = None, 0.0, None
        if len(self.before) == len(self.jobs):
            return
        where: dict[str, Any] = {}
        if self.before and not anywhere:
            self.worker = self.before[-1][0]
            where = {"workers": [self.worker], "priority": 1}  # before what other chains have waiting there
        key = (self.name[0], self.job.name, uuid.uuid4().hex)
        self.future = client.submit(
            _on_worker, self.carry, self.job.what, self.before, self.name, key=key, pure=False, **where
        )
        self.wait(self.future)

    def wait(self, future: Future) -> None:
        """Have the job's end, of whatever kind, told."""
        future.add_done_callback(lambda future: self.finished.put((self, future)))


def _on_worker(carry: Carry, what: Any, before: list[tuple[str, Any]], name: tuple[str, int]) -> tuple[str, Any]:
    """Do a job, on a worker; its address, and what came out."""
    from distributed import get_worker

    worker = get_worker()
    task = worker.state.tasks[worker.get_current_task()]
    done, told = 0.0, time.monotonic()

    def on_progress(amount: float) -> None:
        nonlocal done, told
        if task.state == "cancelled" or worker.status.name in ("closing", "closed", "failed"):
            raise CancelledError("nobody waits for this any longer")
        done += amount
        if time.monotonic() - told > 1:
            worker.log_event(_TOPIC, (*name, done))
            told = time.monotonic()

    try:
        if worker.state.nthreads != 1:  # jobs may use what a process has once, such as a random generator
            raise ValueError(f"got {worker.state.nthreads} threads; allowed: 1, as with dask worker --nthreads 1")
        return worker.address, carry(what, [other for place, other in before if place == worker.address], on_progress)
    except Exception as error:
        raise RuntimeError(
            f"worker {worker.address} on {socket.gethostname()}: {type(error).__name__}: {error}"
        ) from error


def _given(future: Future, chain: _Chain, address: str) -> tuple[str, Any] | None:
    """What `_on_worker` gave, or None where its worker died with it: then Dask has the job done again."""
    try:
        return future.result(timeout=30)
    except TimeoutError:
        chain.wait(future)
        return None
    except (CancelledError, OSError):  # what a job raises comes as RuntimeError
        raise _lost(address) from None
    except Exception as error:
        raise RuntimeError(f"{chain.job.name}: {error}") from error


def _lost(address: str) -> ConnectionError:
    return ConnectionError(
        f"engine: lost the Dask scheduler at {address}, or it was told to drop its tasks. What was finished is kept; "
        "with the scheduler and its workers started anew, the same call does the rest"
    )


def _workers(client: Client, address: str) -> set[str]:
    """Addresses of the workers there are."""
    try:
        return set(client.nthreads())
    except OSError:
        raise _lost(address) from None


@contextmanager
def _client(address: str) -> Iterator[Client]:
    """A connection to a scheduler that has workers."""
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine: got {address!r}, which needs the extra 'cluster': pip install '.[cluster]' ({error})"
        ) from error
    try:
        _try(address)
        client = Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"engine: got {address!r}, where no Dask scheduler answers ({error})") from None
    log = logging.getLogger("distributed.client")
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
        yield client
    except TimeoutError:
        raise ConnectionError(
            f"engine: got {address!r}, a Dask scheduler without workers; start some, one for each processor or GPU: "
            f"dask worker {address} --nthreads 1"
        ) from None
    except ConnectionError:
        log.disabled = True  # it would tell at length that it no longer tries to find the scheduler again
        raise
    finally:
        client.close()
        log.disabled = False


def _try(address: str) -> None:
    """Raise OSError where nothing answers: Dask itself would wait without end for one who listens and says nothing."""
    at = urlsplit(address)
    with socket.create_connection((at.hostname or "", at.port or 0), timeout=_PATIENCE) as connection:
        if at.scheme == "tcp" and not connection.recv(1):  # a scheduler speaks first
            raise OSError("it hung up")
