"""Kills, full disks, read-only folders, Ctrl-C and wrong clocks: a rerun completes, and every finished record stays.

Each is really done, in processes forked from one that has the library loaded. Where this user may not mount a disk, the
error of a full one is injected; only root becomes another user to find a folder read-only.
"""

from __future__ import annotations

import functools
import gc
import itertools
import json
import multiprocessing
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch
import tqdm
from records import record
from victims import (
    NUMBERS,
    STAGE,
    Child,
    Disk,
    carry,
    die,
    die_before_replacing,
    die_in_epoch,
    die_within,
    in_child,
    in_store,
    no_space,
    number_runs,
    soon,
)
from worlds import face_runs, table, without_circumstances

from rnclib import networks, results, training, tuning
from rnclib.data import catalogue, csv_files, images
from rnclib.estimator import RnCRegressor
from rnclib.experiment import Run, key
from rnclib.grid import run_grid
from rnclib.protocols import __main__ as command
from rnclib.recipe import Recipe
from rnclib.tuning import Plan, search

KILLED = -signal.SIGKILL


# --- runs of a fraction of a second ------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def world(tmp_path, monkeypatch):
    monkeypatch.setitem(catalogue.SOURCES, "numbers", NUMBERS)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RNC_ENGINE", raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """Each run collects garbage first: what is loaded need not be looked through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Store of three runs that nothing happens to."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.SOURCES, "numbers", NUMBERS)
        patch.setenv("RNC_CACHE", str(root / "cache"))
        carry(number_runs(), root / "store")
    return root / "store"


def check_completed(root: Path, undisturbed: Path, before: dict[str, bytes]) -> None:
    """A rerun does what is missing and nothing else; each record is there once, as it would have been."""
    found = carry(number_runs(), root)
    assert len(found.loaded) == sum(name.endswith(".json") for name in before)
    after = in_store(root)
    assert {name: after[name] for name in before if name.endswith(".json")} == {
        name: text for name, text in before.items() if name.endswith(".json")
    }
    expected = in_store(undisturbed)
    assert after.keys() == expected.keys()
    for name, text in after.items():
        if name.endswith(".csv"):
            assert text == expected[name]
        else:
            assert without_circumstances(json.loads(text)) == without_circumstances(json.loads(expected[name]))


# --- processes to be killed -------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rnclib.estimator", "rnclib.encoders", "rnclib.grid", "rnclib.protocols.__main__"])
    children: list[Child] = []

    def started(do: Callable[..., None], *given: Any, cache: Path | None = None) -> Child:
        said = tmp_path / f"said{len(children)}"
        process = context.Process(target=in_child, args=(do, given, cache or tmp_path / "cache", said))
        process.start()
        children.append(Child(process, said))
        return children[-1]

    yield started
    for child in children:
        for pid in child.session():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.process.join()


# --- kill −9 in a sweep -----------------------------------------------------------------------------------

POINTS: dict[str, Callable[[], None]] = {
    "in training": lambda: die_in_epoch(4),
    "in writing a checkpoint": lambda: die_within("write_bytes", ".pt"),
    "in writing a record": lambda: die_within("write_text", ".json"),
    "in writing the file beside": lambda: die_within("write_text", ".csv"),
    "before the record takes its place": lambda: die_before_replacing(".json"),
}


def sweep_to(point: str, root: Path, n_before: int) -> None:
    training.CHECKPOINT_SECONDS = 0
    if n_before:
        carry(number_runs(n_before), root)
    POINTS[point]()
    carry(number_runs(), root)


@pytest.mark.parametrize(
    ("point", "n_before"),
    [(point, n) for point in POINTS for n in ((0,) if "beside" in point or "takes" in point else (1,))],
)
def test_a_sweep_goes_on_wherever_it_was_killed(start, tmp_path, undisturbed, point, n_before):
    child = start(sweep_to, point, tmp_path / "store", n_before)
    assert child.end() == KILLED, child.said
    before = in_store(tmp_path / "store")
    assert sum(name.endswith(".json") for name in before) == n_before
    check_completed(tmp_path / "store", undisturbed, before)


def pack_to(root: Path, before: bool) -> None:
    if before:
        die_before_replacing(".zip")
    else:
        Path.unlink = lambda *_, **__: die()
    results.pack(root, profile="smoke", experiment="esol", dataset="esol")


@pytest.mark.parametrize("before", [True, False])
def test_predictions_outlive_a_kill_before_or_after_they_are_packed(start, tmp_path, before):
    one, other = record(seed=0), record(seed=1)
    results.write(one, tmp_path, "index,target,prediction\n1,2,3\n")
    results.pack(tmp_path, profile="smoke", experiment="esol", dataset="esol")
    results.write(other, tmp_path, "index,target,prediction\n4,5,6\n")
    assert start(pack_to, tmp_path, before).end() == KILLED
    results.pack(tmp_path, profile="smoke", experiment="esol", dataset="esol")
    found = [results.all_predictions(each, tmp_path).iloc[0].tolist() for each in (one, other)]
    assert found == [[1, 2, 3], [4, 5, 6]] and not list(tmp_path.glob("*/*/*.csv"))
    assert results.load(tmp_path, profile="smoke", experiment="esol") == [one, other]


# --- two sweeps on one store ------------------------------------------------------------------------------


def carry_slowly(root: Path) -> None:
    write = Path.write_text

    def in_two_parts(path, content, **options):
        write(path, content[: len(content) // 2], **options)
        time.sleep(0.05)
        return write(path, content, **options)

    Path.write_text = in_two_parts
    carry(number_runs(), root)


def test_two_sweeps_on_one_store_leave_each_record_once_and_whole_at_any_time(start, tmp_path, undisturbed):
    store = tmp_path / "store"
    sweeps = [start(carry_slowly, store) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a part of a record would be named
        while any(sweep.process.is_alive() for sweep in sweeps):
            results.load(store, profile="smoke", experiment="numbers")
            time.sleep(0.01)
    assert [sweep.end() for sweep in sweeps] == [0, 0], [sweep.said for sweep in sweeps]
    before = in_store(store)
    assert len(before) == 6  # three records, their test set and versions, and a file beside the first
    check_completed(store, undisturbed, before)


def write_and_pack(root: Path, first: int) -> None:
    for seed in range(first, first + 40):
        results.write(record(seed=seed), root, f"index,target,prediction\n{seed},0,0\n")
        results.pack(root, profile="smoke", experiment="esol", dataset="esol")


def test_two_sweeps_that_pack_at_once_lose_no_predictions(start, tmp_path):
    packers = [start(write_and_pack, tmp_path, first) for first in (0, 40)]
    assert [one.end() for one in packers] == [0, 0], [one.said for one in packers]
    for seed in range(80):
        assert results.all_predictions(record(seed=seed), tmp_path)["index"].tolist() == [seed]


# --- searches ---------------------------------------------------------------------------------------------


def recipe_of(settings: dict[str, Any]) -> Recipe:
    return Recipe("perceptron", fit=replace(STAGE, **settings), widths=(4,))


PLAN = Plan({"learning_rate": (1e-3, 0.1)}, recipe_of, (None, "ridge"))


def search_on(path: Path | None, n_trials: int = 3) -> list[dict[str, Any]]:
    return search(PLAN, [(table(40), table(20, seed=1))], n_trials=n_trials, path=path)


def search_to(point: str, path: Path) -> None:
    search_on(path, 1)
    if point == "between trials":
        tuning._study = lambda *_: die()
    else:
        die_in_epoch(4) if point == "within a trial" else die_within("write_text", ".json")
    search_on(path)


def timeless(trials: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


@pytest.mark.parametrize("point", ["between trials", "within a trial", "in writing them"])
def test_a_search_that_was_killed_goes_on_trial_by_trial(start, tmp_path, point):
    path = tmp_path / "search.json"
    assert start(search_to, point, path).end() == KILLED
    before = json.loads(path.read_text())["trials"]
    assert len(before) == 1
    trials = search_on(path)
    assert trials[:1] == before and trials == json.loads(path.read_text())["trials"]
    assert timeless(trials) == timeless(search_on(None))


def test_searches_at_once_do_not_take_trials_from_each_other(monkeypatch, tmp_path):
    path, trial = tmp_path / "search.json", tuning._trial

    def overtaken(study, plan, sets, trials):
        if len(trials) == 1:
            monkeypatch.setattr(tuning, "_trial", trial)
            search_on(path, 2)
        return trial(study, plan, sets, trials) | {"seconds": 1e9}

    monkeypatch.setattr(tuning, "_trial", overtaken)
    trials = search_on(path)
    assert [one["seconds"] == 1e9 for one in trials] == [True, False, False]
    assert timeless(trials) == timeless(search_on(None)) and json.loads(path.read_text())["trials"] == trials


@pytest.mark.parametrize("damage", ['{"trials": [', "[]", '{"trials": null}'])
def test_a_damaged_file_of_trials_is_named_kept_and_made_again(tmp_path, damage):
    path = tmp_path / "search.json"
    path.write_text(damage)
    with pytest.warns(UserWarning, match=r"search\.json holds no trials .*: it is now search\.json\.unreadable"):
        trials = search_on(path, 1)
    assert len(trials) == 1 and json.loads(path.read_text())["trials"] == trials
    assert (tmp_path / "search.json.unreadable").read_text() == damage


# --- a full disk ------------------------------------------------------------------------------------------


@pytest.fixture(params=["mounted", pytest.param("injected", marks=pytest.mark.slow)])
def disk(request, tmp_path, monkeypatch):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = request.param == "mounted" and os.geteuid() == 0
    if mounted:  # in some containers root may not
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    yield Disk(folder, mounted, monkeypatch)
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_a_sweep_with_the_name_of_the_record(disk, undisturbed):
    carry(number_runs(1), disk.folder)
    before = in_store(disk.folder)
    with disk.full(), pytest.raises(OSError, match=r"No space left on device: '.*/numbers-random-l1-01-\w+\.json'"):
        carry(number_runs(), disk.folder)
    assert in_store(disk.folder) == before and not list(disk.folder.rglob("*.tmp"))
    check_completed(disk.folder, undisturbed, before)


@functools.cache
def model() -> RnCRegressor:
    """A fitted model, of more than 100 kB in a file."""
    x = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    return RnCRegressor(method="joint", epochs=5, random_state=0).fit(x, x[:, 0])


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a.pt": lambda path: training.write_state(path, {"new": torch.zeros(20_000)}),
    "a.csv": lambda path: csv_files.write(pd.DataFrame({"a": range(20_000)}), path),
    "a.safetensors": lambda path: model().save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_whole_and_is_told_with_its_name(disk, name):
    path = disk.folder / name
    path.write_text("old")
    with disk.full(), pytest.raises(OSError, match=rf"No space left on device: '.*/{name}'"):
        WRITERS[name](path)
    assert path.read_text() == "old" and [one.name for one in disk.folder.iterdir()] == [name]
    WRITERS[name](path)
    assert path.read_bytes() != b"old"


def test_a_full_disk_ends_a_search_and_keeps_its_trials(disk):
    path = disk.folder / "search.json"
    before = search_on(path, 1)
    with disk.full(), pytest.raises(OSError, match=r"No space left on device: '.*/search\.json'"):
        search_on(path)
    assert json.loads(path.read_text())["trials"] == before
    assert search_on(path, 2)[:1] == before


def test_a_full_disk_leaves_predictions_beside_their_records(disk):
    results.write(record(seed=0), disk.folder, "index,target,prediction\n1,2,3\n")
    before = in_store(disk.folder)
    with disk.full(), pytest.raises(OSError, match=r"No space left on device: '.*/esol\.zip'"):
        results.pack(disk.folder, profile="smoke", experiment="esol", dataset="esol")
    assert in_store(disk.folder) == before and not list(disk.folder.rglob("*.tmp"))
    results.pack(disk.folder, profile="smoke", experiment="esol", dataset="esol")
    assert results.all_predictions(record(seed=0), disk.folder)["index"].tolist() == [1]


def decode_on_a_full_disk(paths: list[Path]) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*\.npy'"):
        images.decode(paths, 128, progress=False)


def test_a_full_disk_does_not_kill_the_process_that_decodes_pictures(start, tmp_path, disk):
    paths = [tmp_path / f"{number}.png" for number in range(30)]
    for number, path in enumerate(paths):
        PIL.Image.new("RGB", (80, 80), (number, 0, 0)).save(path)
    if not disk.mounted:  # what a full disk does to memory that is mapped to it cannot be pretended
        disk.patch.setattr(os, "posix_fallocate", lambda *_: no_space())
        disk.patch.setenv("RNC_CACHE", str(disk.folder))
        decode_on_a_full_disk(paths)
    else:
        (disk.folder / "images").mkdir()
        child = start(decode_on_a_full_disk, paths, cache=disk.folder)
        assert child.end() == 0, child.said
    assert not [path for path in disk.folder.rglob("*") if path.is_file()]


# --- read-only folders ------------------------------------------------------------------------------------


@pytest.fixture
def reachable():
    """A folder that other users reach, which that of a test is not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def as_nobody(root: Path) -> None:
    """Become one whom the modes of files stop, once Python has loaded what it needs, and come upon folders."""
    with tempfile.TemporaryDirectory() as elsewhere, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNC_CACHE", f"{elsewhere}/cache")
        carry(number_runs(1), Path(elsewhere))
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    networks.train = lambda *_, **__: pytest.fail("it trained")
    store = root / "store"
    assert carry(number_runs(1), store).loaded == number_runs(1)  # which needs no writing
    denied = r"which cannot be written \(Permission denied\); allowed: a folder"
    with pytest.raises(OSError, match=rf"^results_dir: got .*/store/smoke/numbers, {denied} for records"):
        carry(number_runs(), store)
    with pytest.raises(OSError, match=rf"^path: got .*/store, {denied} for trials"):
        search_on(store / "search.json", 1)
    for write in (partial(csv_files.write, pd.DataFrame({"a": [1]})), partial(training.write_state, state={})):
        with pytest.raises(PermissionError, match=r"Permission denied: '.*/store/a\.x'"):
            write(path=store / "a.x")
    os.environ["RNC_CACHE"] = str(store)
    with pytest.raises(OSError, match=rf"^RNC_CACHE: got .*/store, {denied} for checkpoints"):
        carry(number_runs(), root / "open")


def test_a_read_only_folder_is_told_before_anything_is_trained(start, reachable, undisturbed):
    store, cache, other = (reachable / name for name in ("store", "cache", "open"))
    carry(number_runs(1), store)
    before = in_store(store)
    for folder in (cache, other):
        folder.mkdir()
        folder.chmod(0o777)
    folders = [path for path in (store, *store.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    child = start(as_nobody, reachable, cache=cache)
    assert child.end() == 0, child.said
    assert in_store(store) == before and not in_store(other)
    for folder in folders:
        folder.chmod(0o755)
    check_completed(store, undisturbed, before)


# --- Ctrl-C, and processes that are killed ----------------------------------------------------------------


def on_the_command_line(runs: list[Run], root: Path, n_jobs: int | None) -> None:
    """As ``python -m rnclib.protocols`` does them."""
    command._checked = lambda *_: runs
    command.run_grid = partial(run_grid, n_jobs=n_jobs)
    command.main(["agedb", "--dataset", "synthetic", "--profile", "smoke", "--results-dir", str(root)])


def records_in(root: Path) -> list[Path]:
    return list(root.rglob("*.json"))


GO_ON = "What was finished is kept; the same command does the rest.\n"


def test_ctrl_c_ends_a_sweep_in_a_sentence_and_the_same_command_does_the_rest(start, tmp_path, undisturbed):
    store, endless = tmp_path / "store", replace(STAGE, epochs=10**6)
    runs = [number_runs()[0], number_runs()[1].but(fit=endless)]
    child = start(on_the_command_line, runs, store, 1)
    soon(lambda: records_in(store) and "left" in child.said)
    os.killpg(child.process.pid, signal.SIGINT)
    assert child.end() == 130 and soon(lambda: not child.session())
    assert child.said.endswith(f"python -m rnclib.protocols: interrupted. {GO_ON}") and "Traceback" not in child.said
    check_completed(store, undisturbed, in_store(store))


def test_a_full_disk_ends_the_command_in_a_sentence(start, disk):
    carry(number_runs(1), disk.folder)
    if not disk.mounted:
        disk.patch.setattr(command, "run_grid", lambda *_, **__: no_space(disk.folder / "a.json"))
        with pytest.raises(SystemExit) as ended:
            command.main(["agedb", "--dataset", "synthetic", "--profile", "smoke"])
        assert ended.value.code == 1
        return
    with disk.full():
        child = start(on_the_command_line, number_runs(), disk.folder, None)
        assert child.end() == 1
    assert (
        child.said.endswith(f"numbers-random-l1-01-{key(number_runs()[1])[:8]}.json'. {GO_ON}")
        and "Traceback" not in child.said
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["Ctrl-C", "the first process", "one of the others"])
def test_a_sweep_of_several_processes_ends_whole_and_goes_on(start, tmp_path, what):
    store, quick, endless = tmp_path / "store", face_runs("L1")[0], replace(face_runs("L1")[0].recipe.fit, epochs=10**5)
    child = start(on_the_command_line, [quick, *(quick.but(fit=endless, seed=seed) for seed in (1, 2))], store, 2)
    soon(lambda: records_in(store), 300)
    time.sleep(2)
    if what == "Ctrl-C":
        os.killpg(child.process.pid, signal.SIGINT)
    elif what == "the first process":
        os.kill(child.process.pid, signal.SIGKILL)
    else:
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in child.session()}
        os.kill(next(pid for pid, told in commands.items() if "popen_loky" in told), signal.SIGKILL)
    assert child.end() == {"Ctrl-C": 130, "the first process": KILLED, "one of the others": 1}[what]
    soon(lambda: not child.session())  # nobody trains on for no one
    assert what == "the first process" or (child.said.endswith(GO_ON) and "Traceback" not in child.said)
    before = in_store(store)
    again = carry([quick, quick.but(seed=1)], store)
    assert again.loaded == [quick] and len(records_in(store)) == 2
    assert {name: text for name, text in in_store(store).items() if name in before} == before


# --- a Dask worker, and a clock -------------------------------------------------------------------------


def dask(kind: str, *options: str) -> None:
    from distributed.cli import dask_scheduler, dask_worker

    {"scheduler": dask_scheduler, "worker": dask_worker}[kind].main([*options, "--no-dashboard"])


def worker_that_kills(mark: Path, scheduler: int | None, *options: str) -> None:
    """A worker that kills the scheduler or itself in the second epoch of a run, if no other has."""
    inner = training._Loop.run_epoch

    def run_epoch(loop, epoch):
        if epoch == 2 and loop.seed == 1 and not mark.exists():
            mark.touch()
            os.kill(scheduler or os.getpid(), signal.SIGKILL)
        return inner(loop, epoch)

    training._Loop.run_epoch = run_epoch
    dask("worker", *options)


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_a_sweep_on_dask_outlives_a_worker_and_goes_on_without_its_scheduler(start, tmp_path, undisturbed, victim):
    pytest.importorskip("distributed")
    store, address, mark = tmp_path / "store", tmp_path / "address.json", tmp_path / "mark"
    scheduler = start(dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(address))
    engine = json.loads(soon(lambda: address.is_file() and address.read_text()))["address"]
    for name in ("a", "b"):
        options = (engine, "--nthreads", "1", "--no-nanny", "--memory-limit", "0", "--local-directory")
        killed = scheduler.process.pid if victim == "scheduler" else None
        start(worker_that_kills, mark, killed, *options, str(tmp_path / name), cache=tmp_path / name)
    if victim == "scheduler":
        with pytest.raises(ConnectionError, match=r"^engine: lost the Dask scheduler"):
            carry(number_runs(), store, engine=engine)
    else:
        assert len(carry(number_runs(), store, engine=engine).trained) == 3 == len(records_in(store))
    assert mark.exists()
    check_completed(store, undisturbed, in_store(store))


def test_a_clock_that_is_set_back_again_and_again_changes_nothing(monkeypatch, tmp_path, undisturbed):
    hours = itertools.count(500_000, -1)
    for module in (time, tqdm.std):
        monkeypatch.setattr(module, "time", lambda: 3600.0 * next(hours))
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2001, 1, 1, 1 + next(hours) % 2, 0, 0, 0, 1, 0)))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    first = carry(number_runs(1), tmp_path / "store", progress=True)
    before = in_store(tmp_path / "store")
    assert all(stage["wall_time"] >= 0 for stage in first.records[0]["stages"])
    assert min(trial["seconds"] for trial in search_on(tmp_path / "search.json", 1)) >= 0
    check_completed(tmp_path / "store", undisturbed, before)


# --- models and tables ----------------------------------------------------------------------------------


def write_to_die(name: str, path: Path) -> None:
    die_within("write_bytes", name)
    write_csv = pd.DataFrame.to_csv

    def half(frame, to, **options):
        write_csv(frame[: len(frame) // 2], to, **options)
        die()

    pd.DataFrame.to_csv = half
    WRITERS[name](path)


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_in_writing_over_a_file_leaves_the_old_one_whole(start, tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    assert start(write_to_die, name, path).end() == KILLED
    assert path.read_text() == "old" and len(list(tmp_path.glob(f".{name}.*.tmp"))) == 1
    WRITERS[name](path)
    assert path.read_bytes() != b"old"


def test_a_damaged_file_of_packed_predictions_is_named_and_left_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(catalogue.SOURCES, "numbers", replace(NUMBERS, keeps=5))
    (run,) = number_runs(1)
    packed = results.folder(tmp_path, "smoke", "numbers") / "numbers.zip"
    packed.parent.mkdir(parents=True)
    packed.write_bytes(b"PK half")
    with pytest.warns(UserWarning, match=r"^left alone, no readable file of predictions: .*numbers\.zip$"):
        found = carry([run], tmp_path)
    assert found.trained == [run] and packed.read_bytes() == b"PK half" and len(list(tmp_path.glob("*/*/*.csv"))) == 1
    packed.unlink()
    assert carry([run], tmp_path).loaded == [run] and len(results.all_predictions(found.records[0], tmp_path)) == 10
