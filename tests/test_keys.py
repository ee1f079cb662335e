"""Keys of runs: what a redesign must not change.

``python tests/test_keys.py`` writes the snapshot anew, after a change that adds runs or takes some away; the commit
that does so lists what it takes away.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rnclib.data import esol, synthetic
from rnclib.experiment import PROTOCOL, Config, described
from rnclib.protocols import GRIDS

ROOT = Path(__file__).resolve().parents[1]
RECORDS = sorted((ROOT / "book" / "results" / "paper").glob("*/*.json"))
SNAPSHOT = ROOT / "tests" / "grids.txt"
FACES = ("agedb", "synthetic")


def digest(config: dict, checksum: str, protocol: int) -> str:
    """The key of a run, written out."""
    text = json.dumps([config, checksum, protocol], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_committed_record_lies_under_the_digest_of_its_configuration():
    records = [json.loads(path.read_text()) for path in RECORDS]
    runs = [record for record in records if "key" in record]  # the others are measurements of speed
    assert len(runs) >= 1551
    keys = [digest(run["config"], run["data"]["checksum"], run["protocol"]) for run in runs]
    assert keys == [run["key"] for run in runs] and len(set(keys)) == len(keys)


def checksum(config: Config, standin: str) -> str:
    """That of the data, without reading or drawing any; photographs, which are not at hand, have a word for it."""
    if config.dataset == "synthetic":
        return synthetic.recipe(config.n_samples, config.size, tied=config.spurious == "tied")
    return {"esol": esol.SHA256, "standin": standin, "agedb": "photographs"}[config.dataset]


def grids() -> dict[str, list[Config]]:
    """Every grid by chapter, data set, profile, and split or preset where a chapter has several."""
    found = {}
    for profile in ("paper", "quick", "smoke"):
        for dataset in ("esol", "standin"):
            for split in ("random", "scaffold"):
                name = f"esol {dataset} {profile} {split}"
                found[name] = GRIDS["esol"](dataset=dataset, profile=profile, split=split)
        for dataset in FACES:
            for preset in ("paper", "course"):
                name = f"agedb {dataset} {profile} {preset}"
                found[name] = GRIDS["agedb"](dataset=dataset, profile=profile, preset=preset)
        for chapter in ("data_efficiency", "robustness", "ablations", "tuning", "methods"):
            for dataset in ("esol", "standin", *FACES):
                options = {"tuned": {}} if chapter == "methods" and dataset in ("standin", "agedb") else {}
                found[f"{chapter} {dataset} {profile}"] = GRIDS[chapter](dataset=dataset, profile=profile, **options)
    return found


def snapshot() -> str:
    """A line for each grid: its name, and the keys of its runs in their order."""
    standin = esol.load_standin().checksum
    lines = [
        f"{name}: {' '.join(digest(described(run), checksum(run, standin), PROTOCOL) for run in grid)}\n"
        for name, grid in grids().items()
    ]
    return "".join(lines)


def test_every_grid_has_the_runs_that_it_had():
    assert snapshot().splitlines() == SNAPSHOT.read_text().splitlines()


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
