"""Runs on a real Dask scheduler with three workers, and what is left when one of them, or it, is killed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from worlds import face_runs, molecule_runs, without_circumstances

from rnclib import cluster, grid, results
from rnclib.cluster import Job, carried_out, scheduler_of
from rnclib.grid import run_grid

distributed = pytest.importorskip("distributed")

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.slow]  # it starts and kills processes

NAMES = ("a", "b", "c")

# What `dask scheduler` and `dask worker` start, with one import of the library between them. Workers share no cache,
# data or store with the client or each other.
NURSERY = """
import json, os, signal, sys
import rnclib.encoders, rnclib.grid, torchvision
from distributed.cli import dask_scheduler, dask_worker

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that are killed leave no zombies
for line in sys.stdin:
    kind, folder, *options = json.loads(line)
    if child := os.fork():
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    os.environ |= {f"RNC_{what.upper()}": f"{folder}/{what}" for what in ("cache", "data", "results")}
    {"scheduler": dask_scheduler, "worker": dask_worker}[kind].main(options)
"""


def soon(found: Callable[[], Any], seconds: float = 600) -> Any:
    """What a function finds, as soon as that is true."""
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.02)
    return value


@contextmanager
def meanwhile(do: Callable[[], None], when: Callable[[], Any]) -> Iterator[None]:
    """While a block runs, do something as soon as something else is true."""
    thread = threading.Thread(target=lambda: (soon(when), do()))
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Cluster:
    """A scheduler and its workers, in processes of their own."""

    def __init__(self, nursery: subprocess.Popen, root: Path) -> None:
        self.nursery, self.root, self.address = nursery, root, ""
        self.pids: dict[str, int] = {}

    def start(self, name: str, kind: str, *options: str) -> None:
        print(
            json.dumps([kind, str(self.root / name), *options, "--no-dashboard"]), file=self.nursery.stdin, flush=True
        )
        self.pids[name] = int(self.nursery.stdout.readline())

    def start_scheduler(self) -> None:
        file = self.root / "address.json"
        file.unlink(missing_ok=True)
        options = ("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file), "--idle-timeout", "300")
        self.start("scheduler", "scheduler", *options)
        self.address = json.loads(soon(lambda: file.is_file() and file.read_text()))["address"]

    def start_worker(self, name: str, threads: int = 1) -> None:
        options = ("--nthreads", str(threads), "--no-nanny", "--memory-limit", "0")
        self.start(name, "worker", self.address, "--name", name, *options)

    def workers(self) -> dict[str, str]:
        """Names of the workers by their address, as the scheduler knows them."""
        with distributed.Client(self.address, set_as_default=False) as client:
            return {address: worker["name"] for address, worker in client.scheduler_info()["workers"].items()}

    def kill(self, *names: str) -> None:
        for name in names:
            with suppress(ProcessLookupError):
                os.kill(self.pids.pop(name), signal.SIGKILL)

    def kill_scheduler(self) -> None:
        self.kill("scheduler")

    def kill_one_at_work(self) -> None:
        with distributed.Client(self.address, set_as_default=False) as client:
            busy = soon(lambda: [worker for worker, tasks in client.processing().items() if tasks])
            self.kill(client.scheduler_info()["workers"][busy[0]]["name"])

    def complete(self) -> None:
        """Bring back what is gone."""
        if "scheduler" not in self.pids:
            self.kill(*self.pids)
            self.start_scheduler()
        for name in set(NAMES) - set(self.pids):
            self.start_worker(name)
        soon(lambda: sorted(self.workers().values()) == sorted(NAMES))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A loaded machine is slow, not wrong."""
    monkeypatch.setattr(cluster, "_PATIENCE", 300)


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    with (
        (tmp_path_factory.mktemp("nursery") / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process,
    ):  # fmt: skip
        yield process
        process.kill()


@pytest.fixture
def new_cluster(nursery, tmp_path):
    """A scheduler alone."""
    one = Cluster(nursery, tmp_path)
    one.start_scheduler()
    yield one
    one.kill(*list(one.pids))


@pytest.fixture(scope="module")
def lasting(nursery, tmp_path_factory):
    one = Cluster(nursery, tmp_path_factory.mktemp("cluster"))
    yield one
    one.kill(*list(one.pids))


@pytest.fixture
def three(lasting):
    """A scheduler with three workers."""
    lasting.complete()
    return lasting


# --- jobs of any kind -----------------------------------------------------------------------------------


def on(address: str, *chains: list[str], carry: Callable[..., Any], show: Callable[..., None] = lambda *_: None) -> Any:
    """What comes back from a cluster for chains of jobs of equal work."""
    return carried_out(address, [[Job(one, 1.0, one) for one in chain] for chain in chains], carry, show)


def test_jobs_of_a_chain_go_to_one_worker_in_their_order(three):
    def carry(what, before, on_progress):
        import distributed

        return what, before, distributed.get_worker().name

    chains = [[f"{chain}{number}" for number in range(3)] for chain in "pqrstuvw"]
    found = list(on(three.address, *chains, carry=carry))
    assert sorted(what for what, _, _ in found) == sorted(itertools.chain(*chains))
    for chain in chains:
        its = [one for one in found if one[0] in chain]
        assert [(what, before) for what, before, _ in its] == [(one, chain[:i]) for i, one in enumerate(chain)]
        assert len({worker for _, _, worker in its}) == 1
    assert len({worker for _, _, worker in found}) > 1
    assert list(on(three.address, carry=carry)) == []


def test_what_a_killed_worker_was_at_is_done_again_and_nothing_else(three, tmp_path):
    def carry(what, before, on_progress):
        import os
        import signal
        import time
        from pathlib import Path

        with (tmp_path / "log").open("a") as log:
            log.write(f"{what}\n")
        time.sleep(0.05)
        if what in ("p0", "q1") and not (mark := Path(tmp_path / what)).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return what, before

    chains = [[f"{chain}{number}" for number in range(3)] for chain in "pqrst"]
    found = on(three.address, *chains, carry=carry)
    first = next(found)
    assert first[0] in ("r0", "s0", "t0", "q0")  # and not only when all are finished
    found = [first, *found]
    assert Counter(what for what, _ in found) == Counter(itertools.chain(*chains))
    times = Counter((tmp_path / "log").read_text().split())
    assert {what: n for what, n in times.items() if n > 1} == {"p0": 2, "q1": 2}
    before = dict(found)
    assert before["q1"] == [] and before["q2"] == ["q1"]  # q0 was done by the worker that is gone
    assert set(three.workers().values()) < set(NAMES) and len(three.workers()) == 1
    three.pids = {name: three.pids[name] for name in ("scheduler", *three.workers().values())}


def test_a_job_that_fails_is_told_with_its_worker_and_host(three):
    def carry(what, before, on_progress):
        if what == "bad":
            raise FileNotFoundError("faces.csv is nowhere")
        return what

    found = on(three.address, ["good", "bad"], carry=carry)
    assert next(found) == "good"
    told = rf"^bad: worker tcp://127\.0\.0\.1:\d+ on {socket.gethostname()}: FileNotFoundError: faces.csv is nowhere$"
    with pytest.raises(RuntimeError, match=told):
        next(found)


def test_progress_comes_while_jobs_are_under_way(three):
    def carry(what, before, on_progress):
        import time

        for _ in range(8):
            time.sleep(0.4)
            on_progress(1 / 8)

    shown = []
    list(on(three.address, ["p"], ["q"], carry=carry, show=lambda *one: shown.append(one)))
    done = [amount for amount, _ in shown]
    assert done == sorted(done) and done[0] == 0 and done[-1] == 2
    assert any(0 < amount < 1 for amount in done) and {n for _, n in shown} == {3}


def test_a_job_that_nobody_waits_for_ends(three, tmp_path):
    def carry(what, before, on_progress):
        import time

        try:
            while True:
                (tmp_path / "began").touch()
                time.sleep(0.1)
                on_progress(0.001)
        finally:
            (tmp_path / "ended").touch()

    class Stopped(Exception):
        pass

    def stop(*_):
        if (tmp_path / "began").exists():
            raise Stopped

    with pytest.raises(Stopped):
        list(on(three.address, ["p"], carry=carry, show=stop))
    soon((tmp_path / "ended").exists)


def test_a_worker_with_several_threads_is_refused(new_cluster):
    new_cluster.start_worker("a", threads=2)
    with pytest.raises(RuntimeError, match="got 2 threads; allowed: 1, as with dask worker --nthreads 1"):
        list(on(new_cluster.address, ["p"], carry=lambda *_: None))


# --- a scheduler that is not there ----------------------------------------------------------------------


def test_an_engine_is_one_of_few(monkeypatch):
    for name in ("RNC_ENGINE", "DASK_SCHEDULER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert scheduler_of(None) is None and scheduler_of("loky") is None
    for wrong in ("spark", "dask", "host:8786", "tcp://host", "inproc://1/2:3", "tcp:// host:1"):
        with pytest.raises(ValueError, match=r"^engine: got .*; allowed: 'loky', the address that `dask scheduler`"):
            scheduler_of(wrong)
    monkeypatch.setenv("RNC_ENGINE", "dask")
    with pytest.raises(ValueError, match=r"^engine: got 'dask' with DASK_SCHEDULER_ADDRESS=''; allowed: "):
        scheduler_of(None)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tls://host:8786")
    assert scheduler_of(None) == scheduler_of("dask") == "tls://host:8786" and scheduler_of("loky") is None
    monkeypatch.setenv("RNC_ENGINE", "tcp://[::1]:1")
    assert scheduler_of(None) == "tcp://[::1]:1"


def test_a_scheduler_that_does_not_answer_is_told_soon(monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        for reason in ("refused", "timed out"):  # nobody listens; one listens and says nothing
            with pytest.raises(ConnectionError, match=rf"^engine: got 'tcp://127.0.0.1:{port}', where no .*{reason}"):
                next(on(f"tcp://127.0.0.1:{port}", ["p"], carry=print))
            silent.listen()


def test_a_scheduler_without_workers_is_told_soon(monkeypatch, new_cluster):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    told = f"a Dask scheduler without workers; start some.*: dask worker {new_cluster.address} --nthreads 1$"
    with pytest.raises(ConnectionError, match=told):
        next(on(new_cluster.address, ["p"], carry=print))


def test_without_dask_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the extra 'cluster': pip install '\.\[cluster\]'"):
        next(on("tcp://127.0.0.1:8786", ["p"], carry=print))


# --- grids ----------------------------------------------------------------------------------------------


def carry_runs(runs, root, **options):
    return run_grid(runs, results_dir=root, progress=False, **options)


def in_store(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def check_like_one_process(found: grid.Grid, runs, root: Path, tmp_path: Path) -> None:
    """The numbers, and the files, each once."""
    one = carry_runs(runs, tmp_path / "one", n_jobs=1)
    assert list(map(without_circumstances, found.records)) == list(map(without_circumstances, one.records))
    assert list(in_store(root)) == list(in_store(tmp_path / "one"))
    assert len(list(root.rglob("*.json"))) == len(runs) == len({record["key"] for record in found.records})


def test_three_workers_give_the_records_of_one_process_to_a_store_they_do_not_see(three, tmp_path, capsys):
    runs = face_runs("L1", "RnC(L1)", "RnC(L2)", "training mean") + face_runs("RnC(L1)", "RnC(L2)", seed=1)
    found = run_grid(runs, results_dir=tmp_path / "store", engine=three.address)
    assert f"{len(runs)} runs on 3 workers: 100%" in capsys.readouterr().err
    assert found.trained == runs
    assert not (tmp_path / "cache").exists() and not list(three.root.glob("*/results"))
    encoders = [path.name for path in three.root.glob("*/cache/encoders/*.pt")]
    assert len(encoders) == 2 == len(set(encoders))  # each trained once, for two runs
    check_like_one_process(found, runs, tmp_path / "store", tmp_path)
    again = carry_runs(runs, tmp_path / "store", engine=three.address)
    assert again.loaded == runs and again.records == found.records


@pytest.mark.parametrize("n", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_a_grid_outlives_its_scheduler_and_one_of_its_workers(three, tmp_path, n):
    runs = [run for seed in range(100 * n, 101 * n) for run in face_runs("L1", seed=seed)]
    store = tmp_path / "store"

    def n_records():
        return len(list(store.rglob("*.json")))

    lost = f"^engine: lost the Dask scheduler at {three.address}"
    with meanwhile(three.kill_scheduler, lambda: n_records() > 1), pytest.raises(ConnectionError, match=lost):
        carry_runs(runs, store, engine=three.address)
    before, n_before = in_store(store), n_records()
    assert 2 <= n_before < n
    three.complete()
    with meanwhile(three.kill_one_at_work, lambda: n_records() > n_before):
        found = carry_runs(runs, store, engine=three.address)
    assert len(three.workers()) == 2 and len(found.loaded) == n_before
    assert {name: text for name, text in in_store(store).items() if name in before} == before
    check_like_one_process(found, runs, store, tmp_path)


@pytest.mark.slow
def test_forty_runs_of_which_one_loses_its_worker(three, tmp_path):
    runs = [run for seed in range(40) for run in face_runs("L1", seed=seed)]
    with meanwhile(three.kill_one_at_work, lambda: list(tmp_path.rglob("*.json"))):
        found = carry_runs(runs, tmp_path / "store", engine=three.address)
    assert len(three.workers()) == 2 and found.trained == runs
    check_like_one_process(found, runs, tmp_path / "store", tmp_path)


def test_refresh_trains_anew_what_a_worker_has_in_its_cache(new_cluster, tmp_path):
    new_cluster.start_worker("a")
    runs = face_runs("RnC(L1)", "RnC(L2)")

    def trained():
        return {path.name: path.stat().st_mtime_ns for path in new_cluster.root.glob("a/cache/encoders/*.pt")}

    carry_runs(runs, tmp_path / "store", engine=new_cluster.address)
    first = trained()
    carry_runs(runs, tmp_path / "other", engine=new_cluster.address)
    assert trained() == first and len(first) == 1
    carry_runs(runs, tmp_path / "store", engine=new_cluster.address, refresh=True)
    assert trained().keys() == first.keys() and trained() != first


def test_a_worker_with_other_data_or_without_is_named(monkeypatch, three, tmp_path):
    (run,) = molecule_runs("training mean", dataset="esol")
    for name in NAMES:
        (wrong := three.root / name / "data" / "esol" / "raw").mkdir(parents=True, exist_ok=True)
        (wrong / "delaney-processed.csv").touch()
    on_worker = rf"^training mean, seed 0: worker tcp://127\.0\.0\.1:\d+ on {socket.gethostname()}: "
    with pytest.raises(RuntimeError, match=on_worker + "FileNotFoundError: .* is not the expected file"):
        carry_runs([run], tmp_path, engine=three.address)
    (face,) = face_runs("training mean")
    monkeypatch.setattr(grid, "key", lambda _: "that of other data")
    with pytest.raises(
        RuntimeError, match=on_worker + r"ValueError: run: got one whose key is \w+ here; allowed: that"
    ):
        carry_runs([face], tmp_path, engine=three.address)
    assert not list(tmp_path.rglob("*.json"))


def test_workers_of_another_commit_are_told_once_and_records_name_their_own(monkeypatch, three, tmp_path):
    runs = [run for seed in range(3) for run in face_runs("training mean", seed=seed)]
    theirs = results.commit()
    monkeypatch.setattr(results, "commit", lambda: ("another", True))
    with pytest.warns(
        UserWarning, match="a worker has .*, this process .*'another'.*; each record names its own"
    ) as told:
        found = carry_runs(runs, tmp_path, engine=three.address)
    assert len(told) == 1 and told[0].filename == __file__
    assert {record["run"]["commit"] for record in found.records} == {theirs[0]}
