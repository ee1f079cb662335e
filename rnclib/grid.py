"""Records of many runs: loaded from the store or carried out, side by side, with progress, where others stopped."""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import parent_process
from multiprocessing.managers import SyncManager
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from rnclib import cluster, provenance, results
from rnclib.experiment import Run, carry_out, key, shared, work
from rnclib.files import check_writable
from rnclib.fitting import launch, processes

__all__ = ["Grid", "run_grid", "run_on_one_machine"]

_LISTED = 20  # methods that are named one by one


@dataclass
class Grid:
    """Records of a grid of runs, in its order.

    Attributes
    ----------
    records : list of dict
        With the label of each run, see `rnclib.results.labelled`.
    loaded, trained : list of Run
        Which runs the store held, and which were carried out now.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[Run] = field(default_factory=list)
    trained: list[Run] = field(default_factory=list)

    def __str__(self) -> str:
        def listed(runs: list[Run]) -> str:
            counts = Counter(run.label for run in runs)
            if len(counts) > _LISTED:
                return f" (of {len(counts)} methods)"
            return f" ({', '.join(f'{n} × {label}' for label, n in counts.items())})" if counts else ""

        return (
            f"{len(self.loaded)} runs loaded from the store{listed(self.loaded)}; "
            f"{len(self.trained)} trained now{listed(self.trained)}"
        )


def run_grid(
    runs: Sequence[Run],
    *,
    results_dir: str | os.PathLike | None = None,
    refresh: bool = False,
    device: str = "cpu",
    n_jobs: int | None = None,
    progress: bool = True,
    engine: str | None = None,
) -> Grid:
    """Records of all `runs`: loaded where the store holds them, made and stored where it does not.

    Parameters
    ----------
    runs : sequence of Run
        Of one experiment and profile.
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.
    refresh : bool
        Carry out every run anew.
    device : str
        See `rnclib.fitting.Execution`.
    n_jobs : int, optional
        Processes, with one thread each; by default one per processor, but one for short work or an accelerator. A
        single run, or several that share an encoder, use the threads that torch is set to.
    progress : bool
        Show a bar with the time left.
    engine : str, optional
        ``'loky'``: processes of this machine. The address of a Dask scheduler, as ``dask scheduler`` prints it, such as
        ``'tcp://host:8786'``: its workers, all that there are, those that come later too. ``'dask'``: the same with the
        address in ``DASK_SCHEDULER_ADDRESS``. By default the value of ``RNC_ENGINE``, else ``'loky'``.

    Raises
    ------
    ValueError
        If `runs` are of several experiments or profiles, or there are none.
    ConnectionError
        If the Dask scheduler cannot be reached, has no workers, or is lost.
    OSError
        If the store cannot be written, before anything is trained; or a file cannot, as on a full disk.
    RuntimeError
        If a run fails on a worker of a Dask scheduler.

    Warns
    -----
    UserWarning
        If a Dask worker has another commit of this library, or another version of torch, than this process.

    Notes
    -----
    With Dask, each processor or GPU has a worker of its own, with one thread, on a machine where this library and the
    data are installed::

        dask scheduler
        dask worker tcp://host:8786 --nthreads 1 --memory-limit 0
        CUDA_VISIBLE_DEVICES=0 dask worker tcp://host:8786 --nthreads 1 --memory-limit 0

    A worker finds data and cache where its own ``RNC_DATA`` and ``RNC_CACHE`` say, and a folder that a run names at
    the same path as here. No disk need be shared: this process writes each record as soon as its run is finished. When
    a worker dies, another does again what it was at; when the scheduler or this process does, the same call does the
    rest. A scheduler does what anyone bids it who can reach it: it belongs in a private network.
    """
    scheduler = cluster.scheduler_of(engine)
    root = Path(results.results_dir() if results_dir is None else results_dir)
    kinds = {(run.experiment, run.profile) for run in runs}
    if len(kinds) != 1:
        raise ValueError(f"runs: got {sorted(kinds)}; allowed: one experiment and profile, at least one run")
    ((experiment, profile),) = kinds
    stored = _stored(runs, root)
    world, _ = processes()
    if scheduler is not None and (world > 1 or n_jobs is not None):
        by = "n_jobs" if n_jobs is not None else "torchrun"
        raise ValueError(f"engine: got {scheduler!r} and {by}; allowed: one of them, a scheduler uses all its workers")
    if world > 1:  # what is missing is for one process to say
        stored = launch(device).broadcast(stored)
    keys = [key(run) for run in runs]
    missing = [run for run, k in zip(runs, keys, strict=True) if refresh or k not in stored]
    if missing:
        check_writable(results.folder(root, profile, experiment), "results_dir", "records")
        # runs that share what is trained go to one process, the first of them trains it
        bundles: dict[Any, list[Run]] = {}
        for run in missing:
            bundles.setdefault(shared(run), []).append(run)
        how = _How(root, device, refresh)
        jobs = min(_jobs(missing, n_jobs, device), len(bundles))
        for record in _carried_out(list(bundles.values()), how, scheduler or jobs, progress):
            stored[record["key"]] = record
    for dataset in {run.data.dataset for run in runs if run.data.source.keeps and processes()[1] == 0}:
        results.pack(root, profile=profile, experiment=experiment, dataset=dataset)
    redone = set(map(key, missing))
    labels = [run.label for run in runs]
    return Grid(
        records=results.labelled([stored[k] for k in keys], labels),
        loaded=[run for run, k in zip(runs, keys, strict=True) if k not in redone],
        trained=missing,
    )


def run_on_one_machine(
    runs: Sequence[Run], *, results_dir: str | os.PathLike | None = None, device: str = "cpu"
) -> Grid | str:
    """As `run_grid`, for runs that are compared closely: all of one kind of processor and one version of torch.

    That is the machine of most of the records there are. Records of another are copied to the archive, the store in
    its folder ``archive``, and made anew. Runs are carried out by processes of this machine, whatever ``RNC_ENGINE``
    says.

    Parameters
    ----------
    runs, results_dir, device
        As for `run_grid`.

    Returns
    -------
    Grid or str
        A sentence where this is not that machine: then nothing is done.
    """
    root = Path(results.results_dir() if results_dir is None else results_dir)
    stored = _stored(runs, root)
    made = {run: results.machine(stored[k]) for run in runs if (k := key(run)) in stored}
    home = Counter(made.values()).most_common(1)[0][0] if made else provenance.here(device)
    if home != provenance.here(device):
        return f"left for {' with torch '.join(home)}; this is {' with torch '.join(provenance.here(device))}"
    foreign = [run for run, machine in made.items() if machine != home]
    for run in foreign:
        results.write(stored[key(run)], root / "archive")
    if foreign:
        run_grid(foreign, results_dir=root, refresh=True, device=device, engine="loky")
    return run_grid(runs, results_dir=root, device=device, engine="loky")


def _stored(runs: Sequence[Run], root: Path) -> dict[str, dict[str, Any]]:
    """Records of the same experiment, profile and data sets, by key."""
    of = {(run.profile, run.experiment, run.data.dataset) for run in runs}
    return {
        record["key"]: record
        for profile, experiment, dataset in sorted(of)
        for record in results.load(root, profile=profile, experiment=experiment, dataset=dataset)
    }


@dataclass(frozen=True)
class _How:
    """Where records go, and how runs are carried out."""

    root: Path
    device: str
    refresh: bool


def _jobs(runs: Sequence[Run], n_jobs: int | None, device: str) -> int:
    """Number of processes to work on runs."""
    if processes()[0] > 1:  # those that torchrun has started work on one run together
        return 1
    stages = [stage for run in runs for stage in (run.recipe.pretrain, run.recipe.fit) if stage is not None]
    # a second process takes as long to start as some dozens of epochs take
    worth_it = sum(stage.epochs for stage in stages) > 100
    return n_jobs or ((os.cpu_count() or 1) if device == "cpu" and worth_it else 1)


def _carried_out(bundles: list[list[Run]], how: _How, by: int | str, progress: bool) -> Iterable[dict[str, Any]]:
    """Records, each as soon as it is in the store; made by so many processes, or by the workers of a scheduler."""
    total = sum(work(run) for bundle in bundles for run in bundle)
    bar = tqdm(
        total=total or None,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left",
        disable=not progress or processes()[1] > 0,
        desc=f"{sum(map(len, bundles))} runs",
        mininterval=1,
    )
    with bar:
        if isinstance(by, str):
            yield from _on_workers(bundles, how, by, bar)
        elif by == 1:
            threads = torch.get_num_threads()
            if len(bundles) > 1:  # short work: more threads than one would mostly wait for each other
                torch.set_num_threads(1)
            try:
                for bundle in bundles:
                    yield from _one_after_the_other(bundle, how, bar.update)
            finally:
                torch.set_num_threads(threads)
        else:
            with _reports_to(bar) as done:
                tasks = (delayed(_worker)(bundle, how, done) for bundle in bundles)
                for records in Parallel(n_jobs=by, return_as="generator_unordered")(tasks):
                    yield from records


@contextmanager
def _reports_to(bar: tqdm) -> Iterator[Any]:
    """A queue to which other processes report work, shown by the bar."""
    manager = SyncManager()
    manager.start(_end_with_parent)
    with manager:
        done = manager.Queue()
        finished = threading.Event()

        def watch() -> None:
            while not (finished.is_set() and done.empty()):
                try:
                    bar.update(done.get(timeout=0.5))
                except queue.Empty:
                    continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield done
        finally:
            finished.set()
            watcher.join()


def _end_with_parent() -> None:
    """End this process with the one that started it, however that ends; so end those that report to this one."""

    def wait() -> None:
        parent = parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _worker(bundle: list[Run], how: _How, done: Any) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    since, waiting = time.monotonic(), 0.0

    def tell() -> None:
        try:
            done.put(waiting)
        except (OSError, EOFError):  # the process that waits for this one is gone
            os._exit(1)

    def on_progress(amount: float) -> None:
        nonlocal since, waiting
        waiting += amount
        if time.monotonic() - since > 1:
            tell()
            since, waiting = time.monotonic(), 0.0

    records = _one_after_the_other(bundle, how, on_progress)
    tell()
    return records


def _one_after_the_other(bundle: list[Run], how: _How, on_progress: Callable[[float], None]) -> list[dict[str, Any]]:
    return [_kept(*_made(run, bundle[:done], on_progress, how=how), how) for done, run in enumerate(bundle)]


def _made(
    run: Run, before: list[Run], on_progress: Callable[[float], None], *, how: _How
) -> tuple[dict[str, Any], str | None]:
    """Carry out a run of a bundle. With refresh, what one of those before it has trained anew is for it too."""

    def trains(run: Run) -> tuple[Any, Any]:
        where, recipe = (run.data, run.seed, run.weight_seed), run.recipe
        encoder = recipe if recipe.pretrain is None else replace(recipe, fit=None, freeze=True, head=None)
        return (where, replace(recipe, head=None)), (where, encoder)

    (network, encoder), trained = trains(run), list(map(trains, before))
    return carry_out(
        run,
        device=how.device,
        refresh=how.refresh and network not in [network for network, _ in trained],
        keep_encoder=encoder in [encoder for _, encoder in trained],
        on_progress=on_progress,
    )


def _kept(record: dict[str, Any], beside: str | None, how: _How) -> dict[str, Any]:
    """Write a record to the store."""
    if processes()[1] == 0:
        results.write(record, how.root, beside)
    return record


def _on_workers(bundles: list[list[Run]], how: _How, scheduler: str, bar: tqdm) -> Iterator[dict[str, Any]]:
    ours = {"commit": results.commit()[0], "torch": provenance.here()[1]}
    n_runs, others = sum(map(len, bundles)), set()

    def show(done: float, n_workers: int) -> None:
        bar.set_description_str(f"{n_runs} runs on {n_workers} worker{'s' * (n_workers != 1)}", refresh=False)
        bar.update(done - bar.n)

    chains = [
        [cluster.Job(f"{run.label}, seed {run.seed}", work(run), (run, key(run))) for run in bundle]
        for bundle in bundles
    ]
    for record, beside in cluster.carried_out(scheduler, chains, functools.partial(_made_away, how=how), show):
        made = record["run"]
        theirs = {"commit": made["commit"], "torch": results.machine(record)[1]}
        if theirs != ours and (other := str(theirs)) not in others:
            others.add(other)
            warnings.warn(f"a worker has {theirs}, this process {ours}; each record names its own", stacklevel=4)
        yield _kept(record, beside, how)


def _made_away(
    asked: tuple[Run, str], before: list[tuple[Run, str]], on_progress: Callable[[float], None], *, how: _How
) -> tuple[dict[str, Any], str | None]:
    """As `_made`, on another machine: with one thread, and only if the run is the same there."""
    run, its_key = asked
    if (found := key(run)) != its_key:
        raise ValueError(f"run: got one whose key is {found} here; allowed: {its_key}, as with the same data and code")
    torch.set_num_threads(1)
    return _made(run, [run for run, _ in before], on_progress, how=how)
