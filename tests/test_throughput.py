"""The benchmark of training on images: what its pipelines compute, and the tables from known rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rnclib import benchmark, throughput


def test_a_measurement_is_saved_with_its_machine_and_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    threads, told = torch.get_num_threads(), []
    record = throughput.measure("smoke", report=told.append)
    assert torch.get_num_threads() == threads and any("plain" in line for line in told)
    path = benchmark.save(record, tmp_path)
    assert path.parent == tmp_path / "smoke" / "throughput"
    (loaded,) = benchmark.load("smoke", tmp_path, "throughput")
    assert loaded.keys() == record.keys() and loaded["machine"] == record["machine"]
    measured = {row["pipeline"] for row in loaded["rates"]}
    assert measured == {"frozen features", *(name for name in throughput.PIPELINES if "compiled" not in name)}
    assert all(min(row["images_per_second"]) > 0 for row in loaded["rates"])
    with pytest.raises(
        FileNotFoundError, match=r"no throughput record .* python -m rnclib\.throughput --profile quick"
    ):
        benchmark.load("quick", tmp_path, "throughput")
    for name, options in (("profile", {"profile": "long"}), ("device", {"device": "tpu"})):
        with pytest.raises(ValueError, match=rf"{name}: got '.*'; allowed: "):
            throughput.measure(**options)


def test_the_plain_pipeline_takes_the_same_step_as_this_package_from_the_same_views():
    generator = torch.Generator().manual_seed(0)
    views, ages = torch.randn(12, 2, 3, 8, 8, generator=generator), torch.arange(12) % 5
    trunks = [nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for _ in range(2)]
    trunks[1].load_state_dict(trunks[0].state_dict())
    for trunk, loss in zip(trunks, (benchmark.official, benchmark.rnc), strict=True):
        throughput._plain_epoch(trunk, [(views, ages)], loss, torch.device("cpu"))()
    for plain, ours in zip(*(trunk.parameters() for trunk in trunks), strict=True):
        torch.testing.assert_close(plain, ours, rtol=0, atol=1e-6)


def test_rates_are_compared_within_their_setting_and_projected():
    def row(model, size, pipeline, values):
        return {"model": model, "size": size, "batch": 8, "pipeline": pipeline, "images_per_second": values}

    record = {
        "rates": [
            row("small", 64, "plain", [10.0, 30.0, 20.0]), row("small", 64, "rnclib", [100.0, 100.0, 0.1]),
            row("resnet18", 224, "plain", [1.0]), row("resnet18", 224, "rnclib", [4.0]),
            row("resnet18", 224, "rnclib, bf16", [8.0]), row("resnet18", 224, "frozen features", [16.0]),
        ]
    }  # fmt: skip
    table = throughput.rates(record)
    assert table["times"].tolist() == pytest.approx([1, 5, 1, 4, 8, 16])
    hours = throughput.projected_hours(record)
    assert hours.to_dict() == pytest.approx({"resnet18": 12208 * (400 / 8 + 100 / 16) / 3600})
    assert not np.isnan(hours).any()
