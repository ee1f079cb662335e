"""What `make report` says before and after: an estimate from the grids, on which data, and errors from the records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rnclib import first_run, results
from rnclib.chapters import NAMES, experiments
from rnclib.data import catalogue
from rnclib.experiment import key, work

ROOT = Path(__file__).resolve().parents[1]
METHODS = {"L1 end to end": 0.5, "RnC frozen, L1": 0.25, "RnC fine-tuned, L1": 0.3}


def put_records(root: Path, dataset: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Records of the short runs on molecules: each method has an error of its own, a bit more on each split."""
    runs = experiments()["esol"].runs(dataset=dataset, profile="quick", split="random")
    template = results.load(ROOT / "book" / "results", profile="paper", experiment="esol", dataset="esol")[0]
    records = []
    for run in runs:
        mae = METHODS.get(run.label, 1.0) + 0.01 * run.seed
        errors = {part: {"standardised": {"mae": mae, "rmse": mae, "mse": mae}} for part in ("val", "test")}
        its = {"key": key(run), "dataset": dataset, "profile": "quick", "method": run.method, "seed": run.seed}
        config = template["config"] | {"dataset": dataset, "profile": "quick", "method": run.method, "seed": run.seed}
        records.append(template | its | {"config": config, "metrics": errors, "diverged": None})
    for record in records:
        results.write(record, root)
    monkeypatch.setenv("RNC_RESULTS", str(root))
    return len(records)


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_RESULTS", str(tmp_path / "empty"))


def test_every_chapter_has_an_estimate_and_more_processors_and_a_better_pace_shorten_it():
    one, four = first_run.minutes("esol"), first_run.minutes("esol", processors=4)
    assert list(one) == [*NAMES, "book"]
    assert all(0 < four[name] <= one[name] for name in one)
    assert four["loss"] == one["loss"] and four["esol"] < one["esol"] / 2  # it trains, the other does not
    assert four["book"] == one["book"]
    slow = first_run.minutes("esol", pace=2.0)
    assert all(slow[name] == pytest.approx(2 * one[name]) for name in one)


def test_what_is_stored_costs_nothing(tmp_path, monkeypatch):
    before = first_run.minutes("esol")
    put_records(tmp_path / "store", "esol", monkeypatch)
    after = first_run.minutes("esol")
    assert after["esol"] == pytest.approx(first_run.minutes("esol")["claims"])  # nothing but the start of a notebook
    assert {name for name in before if after[name] != before[name]} == {"esol"}
    assert first_run.minutes("standin")["esol"] == before["esol"]  # other molecules were not trained on


def test_the_seconds_of_a_pass_are_those_of_the_committed_records():
    seconds, passes = {}, {}
    for name, dataset in (("esol", "esol"), ("robustness", "esol"), ("agedb", "synthetic"), ("ablations", "synthetic")):
        stored = results.load(ROOT / "book" / "results", profile="paper", experiment=name, dataset=dataset)
        records = {record["key"]: record for record in stored}
        for run in experiments()[name].runs(dataset=dataset, profile="paper"):
            if record := records.get(key(run)):
                kind = (catalogue.source(dataset).kind, run.data.size)
                size = record["data"]["n_train"] / (run.data.fraction or 1) / 1000
                seconds[kind] = seconds.get(kind, 0) + sum(stage["wall_time"] for stage in record["stages"])
                passes[kind] = passes.get(kind, 0) + work(run) * size
    assert seconds.keys() == first_run.PASS.keys()
    for kind, given in first_run.PASS.items():
        assert seconds[kind] / passes[kind] / 2 < given < seconds[kind] / passes[kind] * 2, kind


def test_the_pace_is_measured_and_leaves_the_threads_as_they_were():
    import torch

    threads = torch.get_num_threads()
    assert 0.05 < first_run.pace() < 100
    assert torch.get_num_threads() == threads


def test_the_outlook_names_the_data_the_time_and_the_processors(monkeypatch):
    monkeypatch.setattr(catalogue, "load", lambda name: None)
    monkeypatch.setattr(first_run, "pace", lambda: 1.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    said = first_run.outlook()
    total = round(sum(first_run.minutes("esol", processors=2).values()))
    assert f"about {total} min on 2 processors. A short trial took 1.0 times as long" in said
    assert "Molecules: ESOL, measured" in said and "Faces: synthetic, not photographs" in said
    assert all(re.search(rf"\b{name} (<1|\d+)", said) for name in (*NAMES, "book"))


def test_where_esol_cannot_be_had_the_outlook_says_how_to_get_it(monkeypatch):
    def missing(name):
        raise FileNotFoundError("delaney-processed.csv is not at hand. Put it at /here, or set RNC_DATA")

    monkeypatch.setattr(catalogue, "load", missing)
    monkeypatch.setattr(first_run, "pace", lambda: 1.0)
    (molecules,) = [line for line in first_run.outlook().splitlines() if line.startswith("Molecules")]
    assert "stand-in for ESOL" in molecules and molecules.endswith("Put it at /here, or set RNC_DATA")


@pytest.mark.parametrize(("dataset", "title"), [("esol", "ESOL"), ("standin", catalogue.source("standin").title)])
def test_what_was_found_is_said_in_three_lines(dataset, title, tmp_path, monkeypatch):
    put_records(tmp_path / "store", dataset, monkeypatch)
    first, second, third = first_run.found(Path("/place/index.html")).splitlines()
    # the mean of 0.50, 0.51 and 0.52; each difference is the same on every split
    assert first.startswith(f"{title}, 3 random splits: test MAE 0.510 L1 end to end, 0.260 RnC frozen, L1 (-0.250 [")
    assert "0.310 RnC fine-tuned, L1 (-0.200 [" in first and "standard deviations" in first
    assert 'profile "quick"' in second
    assert third.endswith("/place/index.html")


def test_without_short_runs_that_is_said(tmp_path):
    first, *_ = first_run.found(tmp_path / "index.html").splitlines()
    assert first == "No short runs on molecules are stored."
