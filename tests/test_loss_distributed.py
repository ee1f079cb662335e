"""``gather=True``: several processes see the loss and the gradient of the batch they hold together."""

import datetime
import os
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rnclib import RnCLoss, rnc_loss

SIZES = {"2 even": [4, 4], "2 uneven": [1, 6], "3 even": [2, 2, 2], "3 uneven": [3, 1, 5], "3 large": [40, 90, 20]}
OPTIONS = {
    "default": {},
    "cosine": {"feature_sim": "cosine"},
    "l1": {"feature_sim": "l1"},
    "callable": {"label_diff": lambda y: (y - y.T).abs().double()},
    "temperature": {"temperature": 0.1},
    "sum": {"reduction": "sum"},
}
LABELS = {
    "ages": lambda n, generator: torch.randint(0, 6, (n,), generator=generator),
    "two-dimensional": lambda n, generator: torch.randn(n, 2, generator=generator),
    "bfloat16": lambda n, generator: torch.randn(n, generator=generator).bfloat16(),
}
CASES = [
    *((option, "ages", dtype) for option in OPTIONS for dtype in (torch.float64, torch.float32)),
    ("default", "two-dimensional", torch.float64),
    ("default", "bfloat16", torch.float64),
    ("default", "ages", torch.bfloat16),
]


def make_batch(n, labels, dtype):
    generator = torch.Generator().manual_seed(n)
    features = torch.randn(n, 2, 5, dtype=torch.float64, generator=generator).to(dtype)
    return features, LABELS[labels](n, generator)


def evaluate(features, labels, **options):
    features = features.clone().requires_grad_()
    value = rnc_loss(features, labels, **options)
    value.backward()
    return value.detach(), features.grad


def train(model, features, labels, gather):
    """Five steps of a small encoder without batch norm."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    criterion = RnCLoss(gather=gather)
    for _ in range(5):
        optimiser.zero_grad()
        criterion(torch.stack([model(features[:, 0]), model(features[:, 1])], dim=1), labels).backward()
        optimiser.step()
    return model.state_dict()


def make_encoder():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)).double()


# What one process hands in: features, labels and options.
def zeros(*shape, dtypes=(torch.float32, torch.float32), rank=0):
    return torch.zeros(*shape, dtype=dtypes[rank % 2])


FLOATS, MIXED = (torch.float32, torch.float64), (torch.float32, torch.int64)
DISAGREEMENTS = {
    "width": lambda rank: (zeros(2, 3 + rank), zeros(2), {}),
    "type of labels": lambda rank: (zeros(2, 3), zeros(2, dtypes=MIXED, rank=rank), {}),
    "type of features": lambda rank: (zeros(2, 3, dtypes=FLOATS, rank=rank), zeros(2), {}),
    "width of labels": lambda rank: (zeros(2, 3), zeros(2, 1 + rank), {}),
    "NaN on one": lambda rank: (zeros(2, 3) + [0, torch.nan, 0][rank], zeros(2), {}),
    "shape on one": lambda rank: (zeros(2, 3), zeros(2 + rank % 2), {}),
    "weights on one": lambda rank: (zeros(2, 3), zeros(2), {"weights": torch.ones(2)} if rank else {}),
    "temperature": lambda rank: (zeros(2, 3), zeros(2), {"temperature": torch.tensor(2.0 + rank / 4)}),
}


def refused(features, labels, options):
    try:
        rnc_loss(features, labels, gather=True, **options)
    except ValueError as error:
        return str(error)


def part_of(whole, rank, world):
    return whole[rank::world]


def weighted(rank, world):
    """Weights, a queue of each process's own, and a learnt temperature: the own gradients and the loss."""
    features, labels = make_batch(12, "ages", torch.float64)
    weights = torch.arange(12.0) % 5
    features = part_of(features, rank, world).clone().requires_grad_()
    temperature = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    reference = make_batch(3, "ages", torch.float64)
    value = rnc_loss(
        features, part_of(labels, rank, world), weights=part_of(weights, rank, world), temperature=temperature,
        reference=(reference[0][:, 0], reference[1]), gather=True,
    )  # fmt: skip
    value.backward()
    return value.detach(), features.grad, temperature.grad


def in_groups(rank, world):
    """The loss of the first two processes, and what one outside of their group is told."""
    group = dist.new_group([0, 1])
    features, labels = make_batch(12, "ages", torch.float64)
    try:
        return evaluate(part_of(features, rank, world), part_of(labels, rank, world), gather=True, group=group)
    except ValueError as error:
        return str(error)


def process(rank, world, folder):
    """What each process computes, saved for the test process to compare."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    results = {}
    for name, sizes in SIZES.items():
        if len(sizes) != world:
            continue
        own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
        for option, kind, dtype in CASES:
            features, labels = make_batch(sum(sizes), kind, dtype)
            result = evaluate(features[own], labels[own], gather=True, **OPTIONS[option])
            results[name, option, kind, dtype] = result
        features, labels = make_batch(sum(sizes), "ages", torch.float64)
        with torch.no_grad():
            anchors = rnc_loss(features[own], labels[own], gather=True, reduction="none")
            alone = rnc_loss(features[own], labels[own])
        trained = train(DistributedDataParallel(make_encoder()), features[own], labels[own], gather=True)
        results[name] = anchors, alone, {key.removeprefix("module."): value for key, value in trained.items()}
    one_each = torch.full((1, 3), float(rank), requires_grad=True)
    rnc_loss(one_each, torch.tensor([rank]), gather=True).backward()
    results["errors"] = {name: refused(*DISAGREEMENTS[name](rank)) for name in DISAGREEMENTS}
    results["options"] = weighted(rank, world)
    results["group"] = in_groups(rank, world)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[pytest.param(2, marks=pytest.mark.slow), 3])
def results(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"processes{request.param}")
    mp.spawn(process, (request.param, str(folder)), nprocs=request.param)
    return [torch.load(folder / f"{rank}.pt") for rank in range(request.param)]


def cases_of(results):
    return {name: sizes for name, sizes in SIZES.items() if len(sizes) == len(results)}.items()


@pytest.mark.parametrize(("option", "kind", "dtype"), CASES)
def test_every_process_has_the_loss_and_gradient_of_the_whole_batch(results, option, kind, dtype):
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for name, sizes in cases_of(results):
        features, labels = make_batch(sum(sizes), kind, dtype)
        value, gradient = evaluate(features, labels, **OPTIONS[option])
        parts = [rank[name, option, kind, dtype] for rank in results]
        for part, _ in parts:
            assert part.item() == pytest.approx(value.item(), rel=1e-6 if dtype != torch.float64 else 1e-13)
        # data-parallel averaging divides by the number of processes
        gathered = torch.cat([part for _, part in parts]).double() / len(parts)
        scale = gradient.abs().max().item()
        torch.testing.assert_close(gathered, gradient.double(), atol=tolerance * scale, rtol=0)


def test_unreduced_losses_are_those_of_the_own_anchors(results):
    for name, sizes in cases_of(results):
        features, labels = make_batch(sum(sizes), "ages", torch.float64)
        expected = rnc_loss(features, labels, reduction="none")
        torch.testing.assert_close(torch.cat([rank[name][0] for rank in results]), expected)


def test_without_gather_each_process_is_alone(results):
    for name, sizes in cases_of(results):
        features, labels = make_batch(sum(sizes), "ages", torch.float64)
        for rank, part in enumerate(features.split(sizes)):
            expected = rnc_loss(part, labels.split(sizes)[rank])
            assert results[rank][name][1].item() == expected.item()


def test_data_parallel_training_reaches_the_weights_of_one_process(results):
    for name, sizes in cases_of(results):
        features, labels = make_batch(sum(sizes), "ages", torch.float64)
        expected = train(make_encoder(), features, labels, gather=False)
        start = make_encoder().state_dict()
        for rank in results:
            for key, weight in rank[name][2].items():
                torch.testing.assert_close(weight, expected[key], atol=1e-12, rtol=0)
        assert max((expected[key] - start[key]).abs().max() for key in start) > 0.01


@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_processes_that_disagree_are_all_told_the_same(results, what):
    def by_process(name, values):
        got = ", ".join(str(values(rank)) for rank in range(len(results)))
        return f"{name} {got} by process; allowed: the same in all"

    expected = {
        "width": by_process("features: got feat_dim", lambda rank: 3 + rank),
        "type of labels": by_process("labels: got type", lambda rank: MIXED[rank % 2]),
        "type of features": by_process("features: got type", lambda rank: FLOATS[rank % 2]),
        "width of labels": by_process("labels: got label_dim", lambda rank: 1 + rank),
        "NaN on one": "features: got 6 NaN or infinite among 6 values; allowed: finite numbers (in process 1)",
        "shape on one": "labels: got shape (3,); allowed: one row for each of the 2 rows of features "
        "(one label per sample, not per view) (in process 1)",
        "weights on one": by_process("weights: got given", lambda rank: rank > 0),
        "temperature": by_process("temperature: got value", lambda rank: 2.0 + rank / 4),
    }
    assert {rank["errors"][what] for rank in results} == {expected[what]}


def test_weights_references_and_a_learnt_temperature_across_processes(results):
    world = len(results)
    features, labels = make_batch(12, "ages", torch.float64)
    weights = torch.arange(12.0) % 5
    reference = make_batch(3, "ages", torch.float64)
    leaf = features.clone().requires_grad_()
    temperature = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    expected = rnc_loss(
        leaf, labels, weights=weights, temperature=temperature, reference=(reference[0][:, 0], reference[1])
    )
    expected.backward()
    assert [rank["options"][0].item() for rank in results] == pytest.approx([expected.item()] * world, abs=1e-12)
    for rank, (_, gradient, _) in enumerate(one["options"] for one in results):
        torch.testing.assert_close(gradient / world, part_of(leaf.grad, rank, world), atol=1e-13, rtol=0)
    mean = sum(one["options"][2].item() for one in results) / world
    assert mean == pytest.approx(temperature.grad.item(), abs=1e-12)


def test_a_group_of_some_processes(results):
    world = len(results)
    features, labels = make_batch(12, "ages", torch.float64)
    both = [torch.cat([part_of(one, rank, world) for rank in (0, 1)]) for one in (features, labels)]
    value, gradient = evaluate(*both)
    for rank in (0, 1):
        assert results[rank]["group"][0].item() == pytest.approx(value.item(), abs=1e-13)
    gathered = torch.cat([results[rank]["group"][1] for rank in (0, 1)]) / 2
    torch.testing.assert_close(gathered, gradient, atol=1e-14, rtol=0)
    for one in results[2:]:
        assert one["group"] == "group: got one that this process is not in; allowed: a group of this process"


def failing_process(rank, folder):
    """The second process is gone when the first asks for its part, and later for its gradient."""
    timeout = datetime.timedelta(seconds=5)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timeout)
    features = torch.zeros(2, 3, requires_grad=True)
    value = rnc_loss(features, torch.zeros(2), gather=True)
    if rank:
        os._exit(0)
    start = time.monotonic()
    for step in (value.backward, lambda: rnc_loss(features, torch.zeros(2), gather=True)):
        try:
            step()
        except RuntimeError as error:
            (folder / f"{step is not value.backward}").write_text(f"{time.monotonic() - start} {error}")
    os._exit(0)


def test_a_process_that_fails_leaves_the_others_with_an_error(tmp_path):
    context = mp.get_context("spawn")
    workers = [context.Process(target=failing_process, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    told = [path.read_text() for path in tmp_path.iterdir() if path.name != "store"]
    assert told and all(float(one.split()[0]) < 20 for one in told)


def test_one_process_is_unaffected(tmp_path):
    features, labels = make_batch(5, "ages", torch.float64)
    expected = evaluate(features, labels)
    without_group = evaluate(features, labels, gather=True)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        with_group = evaluate(features, labels, gather=True)
    finally:
        dist.destroy_process_group()
    for value, gradient in (without_group, with_group):
        assert value.item() == expected[0].item()
        assert torch.equal(gradient, expected[1])
