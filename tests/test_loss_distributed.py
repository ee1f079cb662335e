"""``gather=True``: several processes see the loss and the gradient of the batch they hold together."""

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
    try:
        rnc_loss(torch.zeros(2, 3 + rank), torch.zeros(2), gather=True)
    except ValueError as error:
        results["error"] = str(error)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3])
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


def test_processes_that_disagree_on_the_shape_all_say_so(results):
    widths = ", ".join(str(3 + rank) for rank in range(len(results)))
    for rank in results:
        assert rank["error"] == f"features: got feat_dim {widths} by process; allowed: the same in all"


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
