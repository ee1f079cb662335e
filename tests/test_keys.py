"""Keys of runs: what a redesign must not change.

``python tests/test_keys.py`` writes the snapshot anew, after a change that adds runs or takes some away; the commit
that does so lists what it takes away.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rnclib.chapters import experiments
from rnclib.data import catalogue
from rnclib.experiment import PROTOCOL, Run, described
from rnclib.records import SHARED, TEST_SETS, VERSIONS, read
from rnclib.results import machine

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "book" / "results"
RECORDS = sorted((RESULTS / "paper").glob("*/*.json"))
#: Records that others have replaced: of another machine, or of runs that are in no grid any more.
ARCHIVE = sorted((RESULTS / "archive" / "paper").glob("*/*.json"))
#: Quick runs to compare one's own with.
REFERENCE = sorted((RESULTS / "reference" / "quick").glob("*/*.json"))
SNAPSHOT = ROOT / "tests" / "grids.txt"


def digest(config: dict, checksum: str, protocol: int) -> str:
    """The key of a run, written out."""
    text = json.dumps([config, checksum, protocol], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_committed_record_lies_under_the_digest_of_its_configuration():
    for paths, least in ((RECORDS, 1531), (ARCHIVE, 20), (REFERENCE, 20)):
        records = [json.loads(path.read_text()) for path in paths]
        runs = [record for record in records if "key" in record]  # the others are measurements of speed
        assert len(runs) >= least
        keys = [digest(run["config"], run["data"]["checksum"], run["protocol"]) for run in runs]
        assert keys == [run["key"] for run in runs] and len(set(keys)) == len(keys)


def test_each_shared_file_is_named_by_a_record():
    for folder in {path.parent for path in (*RECORDS, *ARCHIVE, *REFERENCE)}:
        records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
        runs = [record for record in records if "key" in record]
        named = {f"{TEST_SETS}/{run['test']['set']}" for run in runs if "set" in run["test"]}
        named |= {f"{VERSIONS}/{run['run']['versions']}" for run in runs}
        found = {path.relative_to(folder).as_posix() for part in SHARED for path in (folder / part).glob("*")}
        assert found == named, folder


def test_an_archived_record_of_a_run_that_is_made_anew_is_of_another_machine():
    now, before = (
        [read(path) for path in paths if "key" in json.loads(path.read_text())] for paths in (RECORDS, ARCHIVE)
    )
    assert None not in (*now, *before)
    now = {record["key"]: record for record in now}
    for then in before:
        if then["key"] in now:
            assert machine(then) != machine(now[then["key"]])


def checksum(run: Run) -> str:
    """That of the data; photographs, which are not at hand, have a word for it."""
    return "photographs" if run.data.dataset == "agedb" else catalogue.checksum(run.data.dataset, **run.data.options)


def grids() -> dict[str, list[Run]]:
    """Every grid by chapter, data set, profile, and split or preset where a chapter has several."""
    found = {}
    for profile in ("paper", "quick", "smoke"):
        for name, experiment in experiments().items():
            for dataset in experiment.datasets:
                options = [{}]
                if name == "esol":
                    options = [{"split": split} for split in ("random", "scaffold")]
                if name == "agedb":
                    options = [{"preset": preset} for preset in ("paper", "course")]
                if name == "methods" and dataset in ("standin", "agedb"):  # no search on these is published
                    options = [{"tuned": {}}]
                for one in options:
                    words = [name, dataset, profile, *(value for value in one.values() if isinstance(value, str))]
                    found[" ".join(words)] = experiment.runs(dataset=dataset, profile=profile, **one)
    return found


def snapshot() -> str:
    """A line for each grid: its name, and the keys of its runs in their order."""
    lines = [
        f"{name}: {' '.join(digest(described(run), checksum(run), PROTOCOL) for run in grid)}\n"
        for name, grid in grids().items()
    ]
    return "".join(sorted(lines))


def test_every_grid_has_the_runs_that_it_had():
    grids_now, grids_then = (
        dict(line.split(": ", 1) for line in text.splitlines()) for text in (snapshot(), SNAPSHOT.read_text())
    )
    changed = sorted(name for name in grids_now | grids_then if grids_now.get(name) != grids_then.get(name))
    assert changed == [], "if runs were added, or taken away on purpose: python tests/test_keys.py"


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
