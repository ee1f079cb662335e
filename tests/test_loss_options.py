"""What the loss offers beyond the published one: ties up to rounding, weights, references, a learnt temperature, and
transforms of functions."""

import copy
import io
import math
import pickle
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from literal_loss import literal, value_and_gradient
from torch.func import functional_call, grad, jacrev, vmap
from torch.utils._python_dispatch import TorchDispatchMode

from rnclib import RnCLoss, rnc_loss, rnc_lower_bound
from rnclib.loss import checks
from rnclib.loss import labels as label_order

generator = torch.Generator().manual_seed(0)
some = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SIMS = ("l2", "cosine", "l1")


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def every_way(features, labels, **options):
    """Loss and gradient on the fast path, on the plain path, and the bound."""
    fast = value_and_gradient(rnc_loss, features, labels, **options)
    plain = value_and_gradient(lambda *a, **o: rnc_loss(*a, **o, reduction="none").mean(), features, labels, **options)
    return fast, plain, rnc_lower_bound(labels, **options)


# ---- ties -------------------------------------------------------------------------------------------------------


@some
@given(
    seed=st.integers(0, 2**32 - 1),
    M=st.integers(3, 12),
    a=st.floats(1e-3, 1e3),
    b=st.floats(-1e3, 1e3),
    dtype=st.sampled_from((torch.float64, torch.float32)),
)
def test_labels_on_a_scale_of_their_own_give_the_loss_of_the_whole_numbers(seed, M, a, b, dtype):
    """y → a·y + b in the type of the labels, wherever a step is at least 64 units in the last place."""
    rng = np.random.default_rng(seed)
    whole = torch.from_numpy(rng.integers(0, 20, M))
    features = torch.from_numpy(rng.standard_normal((M, 3)))
    scaled = whole.to(dtype) * a + b
    unit = torch.finfo(dtype).eps * 2.0 ** (math.frexp(float(scaled.abs().max()))[1] - 1)
    largest = max(abs(a) * 20, abs(b))  # what was rounded on the way
    assume(a >= 64 * max(unit, torch.finfo(dtype).eps * largest))
    for got, expected in zip(every_way(features, scaled), every_way(features, whole), strict=True):
        if isinstance(got, float):
            assert got == pytest.approx(expected, abs=1e-6)
        else:
            assert got[0] == pytest.approx(expected[0], abs=1e-6)
            torch.testing.assert_close(got[1], expected[1], atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("label_diff", ["l1", "l2"])
@pytest.mark.parametrize("M", [20, 130])
def test_tenths_and_standardised_ages_tie_as_the_ages_do(dtype, label_diff, M):
    ages = torch.randint(0, 30, (M,), generator=generator)
    features = normal(M, 4)
    y = ages.to(dtype)
    standardised = (y - y.mean()) / y.std()
    expected = every_way(features, ages, label_diff=label_diff)
    for labels in (y / 10, standardised, y[:, None] / 10, torch.stack([y / 10, 0 * y], dim=1)):
        fast, plain, bound = every_way(features, labels, label_diff=label_diff)
        assert fast[0] == pytest.approx(expected[0][0], abs=1e-6)
        assert plain[0] == pytest.approx(expected[1][0], abs=1e-6)
        torch.testing.assert_close(fast[1], expected[0][1], atol=1e-9, rtol=0)
        assert bound == pytest.approx(expected[2], abs=1e-6)
    assert abs(every_way(features, y / 10, ties="exact")[0][0] - expected[0][0]) > 1e-6


@pytest.mark.parametrize("units", [7, 8, 9, 20])
def test_distances_tie_up_to_eight_units(units):
    unit = 2.0**-52 * 4  # of 4.x in float64
    labels = torch.tensor([0.0, -2.0, 2 + units * unit, 4.5], dtype=torch.float64)
    expected = torch.tensor([0, -20, 20 if units <= 8 else 21, 45])
    features = normal(4, 2)
    assert rnc_loss(features, labels).item() == pytest.approx(rnc_loss(features, expected).item(), abs=1e-12)
    assert rnc_lower_bound(labels) == pytest.approx(rnc_lower_bound(expected), abs=1e-12)


def test_runs_of_ties_do_not_chain():
    """Each step ties with the one before, and a run ends where it would reach beyond eight units from its first."""
    unit = 2.0**-52 * 4
    steps = torch.arange(1, 13, dtype=torch.float64) * 5 * unit
    labels = torch.cat([torch.tensor([0.0, 4.5], dtype=torch.float64), 1 + steps])
    y, tolerance = label_order.comparable(labels[:, None], "l1", "rounding")
    assert tolerance == 8 * unit
    _, last = label_order.farthest_first(y, torch.tensor([0]), "l1", tolerance)
    nearest_first = (len(labels) - 2 - last[0]).flip(0).tolist()  # the first of the run of each
    assert nearest_first == [0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 12]
    features = normal(len(labels), 3)
    fast, plain, _ = every_way(features, labels)
    expected = value_and_gradient(literal, features, labels)
    for got in (fast, plain):
        assert got[0] == pytest.approx(expected[0], abs=1e-12)
        torch.testing.assert_close(got[1], expected[1], atol=1e-12, rtol=0)


@some
@given(seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from((torch.float64, torch.float32, torch.float16)))
def test_labels_a_few_units_apart_equal_the_literal_loop(seed, dtype):
    rng = np.random.default_rng(seed)
    M, unit = int(rng.integers(2, 14)), torch.finfo(dtype).eps
    steps = torch.from_numpy(rng.integers(0, 60, M)) * unit * float(rng.choice([1, 3]))
    labels = (1 + steps).to(dtype)
    features = torch.from_numpy(rng.standard_normal((M, 2)))
    expected = value_and_gradient(literal, features, labels)
    for got in every_way(features, labels)[:2]:
        assert got[0] == pytest.approx(expected[0], abs=1e-12)
        torch.testing.assert_close(got[1], expected[1], atol=1e-12, rtol=0)


def test_runs_of_many_rows_equal_a_loop():
    rng = np.random.default_rng(0)
    for tolerance in (0.0, 0.5, 3.0, 8.0):
        d = torch.from_numpy(np.sort(rng.integers(0, 300, (50, 120)), axis=1)).double()
        runs = label_order._runs(d, tolerance)
        position = torch.arange(120).repeat(50, 1)
        first, last = runs.at_first(position.clone()), runs.at_last(position.clone())
        for row in range(50):
            start = 0
            starts = []
            for k in range(120):
                if d[row, k] - d[row, start] > tolerance:
                    start = k
                starts.append(start)
            assert first[row].tolist() == starts
            ends = [max(k for k in range(120) if starts[k] == one) for one in starts]
            assert last[row].tolist() == ends


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int16, torch.bool])
def test_labels_of_any_whole_type(dtype):
    features, labels = normal(40, 3), torch.randint(0, 2, (40,), generator=generator)
    for got, expected in zip(every_way(features, labels.to(dtype)), every_way(features, labels), strict=True):
        assert got == expected if isinstance(got, float) else got[0] == expected[0]


def test_long_runs_of_ties_do_not_take_long():
    """Labels that float32 holds to a few units: thousands of entries in one chain of ties."""
    labels = 1000 + torch.rand(1500, generator=generator) * 0.01
    features, start = normal(1500, 4), time.monotonic()
    fast, plain, _ = every_way(features, labels)
    assert fast[0] == pytest.approx(plain[0], rel=1e-6)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("different", [1e30, math.inf])
def test_distances_of_a_callable_may_be_infinite_or_negative(different):
    features, kind = normal(20, 3), torch.arange(20) % 3
    expected = rnc_loss(features, kind, label_diff=lambda y: (y != y.T).double())
    value = rnc_loss(features, kind, label_diff=lambda y: torch.where(y != y.T, different, 0.0))
    assert value.item() == pytest.approx(expected.item())
    value = rnc_loss(features, kind, label_diff=lambda y: (y != y.T).double() - 100)
    assert value.item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="label_diff: got a callable that returns NaN; allowed: distances"):
        rnc_loss(features, kind, label_diff=lambda y: (y != y.T) * math.nan)


def test_whole_numbers_are_exact_in_any_type():
    features = normal(40, 3)
    ages = torch.randint(0, 120, (40,), generator=generator)
    expected = rnc_loss(features, ages).item()
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.int8):
        assert rnc_loss(features, ages.to(dtype)).item() == pytest.approx(expected, abs=1e-12)
    assert rnc_loss(features, ages.float() + 2**23).item() == pytest.approx(expected, abs=1e-12)


# ---- weights ----------------------------------------------------------------------------------------------------


@some
@given(
    seed=st.integers(0, 2**32 - 1),
    M=st.integers(2, 9),
    n_views=st.integers(1, 2),
    sim=st.sampled_from(SIMS),
    zeros=st.booleans(),
    references=st.sampled_from((0, 0, 1, 4)),
)
def test_weights_and_references_equal_the_literal_loop(seed, M, n_views, sim, zeros, references):
    rng = np.random.default_rng(seed)
    features = torch.from_numpy(rng.standard_normal((M, n_views, 3)))
    labels = torch.from_numpy(rng.integers(0, 5, M))
    weights = torch.from_numpy(rng.uniform(0.1, 3, M))
    if zeros:
        weights[1:] *= torch.from_numpy(rng.integers(0, 2, M - 1))
    options = {"weights": weights, "feature_sim": sim, "temperature": 0.7}
    if references:
        further = torch.from_numpy(rng.standard_normal((references, 3)))
        options["reference"] = (further, torch.from_numpy(rng.integers(0, 5, references)))
    expected = value_and_gradient(literal, features, labels, **options)
    got = value_and_gradient(rnc_loss, features, labels, **options)
    each = value_and_gradient(lambda *a, **o: rnc_loss(*a, **o, reduction="none").sum(), features, labels, **options)
    total = value_and_gradient(lambda *a, **o: rnc_loss(*a, **o, reduction="sum"), features, labels, **options)
    whole = n_views * weights.sum().item()
    for value, gradient in (got, (each[0] / whole, each[1] / whole), (total[0] / whole, total[1] / whole)):
        assert value == pytest.approx(expected[0], abs=1e-11)
        torch.testing.assert_close(gradient, expected[1], atol=1e-11, rtol=0)


@pytest.mark.parametrize("sim", SIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
def test_weights_in_large_batches(sim, dtype, scale):
    features, weights = (scale * normal(300, 6)).to(dtype), torch.rand(300, generator=generator)
    weights[::7] = 0
    labels = torch.randint(0, 40, (300,), generator=generator)
    reference = (scale * normal(100, 6)).to(dtype), torch.randint(0, 40, (100,), generator=generator)
    options = {"weights": weights, "reference": reference, "feature_sim": sim}
    value, gradient = value_and_gradient(rnc_loss, features, labels, **options)
    for reduction in ("mean", "sum", "none"):
        assert rnc_loss(features, labels, reduction=reduction, **options).dtype == dtype
    mean = lambda f, y, **o: rnc_loss(f, y, **o, reduction="none").sum() / weights.sum()  # noqa: E731
    wide = {**options, "reference": (reference[0].double(), reference[1])}
    expected, gradient0 = value_and_gradient(mean, features.double(), labels, **wide)
    assert value == pytest.approx(expected, rel=1e-5)
    assert (gradient - gradient0).abs().max() <= 1e-4 * gradient0.abs().max()
    assert (gradient[::7] == 0).all()


@pytest.mark.parametrize("sim", SIMS)
def test_equal_weights_change_nothing_and_zero_takes_a_sample_out(sim):
    features, labels = normal(150, 4), torch.randint(0, 30, (150,), generator=generator)
    expected = rnc_loss(features, labels, feature_sim=sim).item()
    for weight in (1, 0.5, 1000, 1e37, 1e-42):
        weights = torch.full((150,), weight)
        assert rnc_loss(features, labels, feature_sim=sim, weights=weights).item() == pytest.approx(expected, abs=1e-12)
    kept = torch.arange(150) % 3 > 0
    expected = rnc_loss(features[kept], labels[kept], feature_sim=sim).item()
    assert rnc_loss(features, labels, feature_sim=sim, weights=kept).item() == pytest.approx(expected, abs=1e-12)
    alone = torch.arange(150) == 4
    value = rnc_loss(features.clone().requires_grad_(), labels, feature_sim=sim, weights=alone)
    assert value.item() == 0 and value.requires_grad


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_label_that_does_not_count_has_no_say_in_ties(reduction):
    features = normal(6, 3)
    labels = torch.tensor([0.1, 0.2, 0.3, 0.5, 0.8, 1e15], dtype=torch.float64)
    value = rnc_loss(features, labels, weights=torch.tensor([1, 1, 1, 1, 1, 0]), reduction=reduction)
    assert value.sum().item() == pytest.approx(rnc_loss(features[:5], labels[:5], reduction=reduction).sum().item())


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("what", ["weights", "temperature"])
def test_nan_in_weights_and_temperature_reaches_the_loss(reduction, what):
    options = {what: {"weights": torch.tensor([1.0, math.nan, 1, 1]), "temperature": torch.tensor(math.nan)}[what]}
    features = normal(4, 2, 3).requires_grad_()
    value = rnc_loss(features, torch.arange(4), validate=False, reduction=reduction, **options).mean()
    value.backward()
    assert value.isnan() and features.grad.isnan().all()
    temperature = torch.tensor(2.0, requires_grad=True)
    reference = normal(5, 3).requires_grad_()
    bad = features.detach() * torch.nan
    values = {"temperature": temperature, "reference": (reference, torch.arange(5)), "reduction": reduction}
    rnc_loss(bad, torch.arange(4), validate=False, **values).mean().backward()
    assert temperature.grad.isnan() and reference.grad.isnan().all()
    with pytest.raises(ValueError, match=f"{what}: got"):
        rnc_loss(features, torch.arange(4), reduction=reduction, **options)


def test_a_sum_is_the_mean_times_the_number_of_anchors():
    features, labels = normal(20, 2, 4), torch.randint(0, 9, (20,), generator=generator)
    assert rnc_loss(features, labels, reduction="sum").item() == pytest.approx(40 * rnc_loss(features, labels).item())


def test_references_are_others_but_no_anchors():
    """The losses of the anchors are those in the batch that holds the references too, and so is their gradient."""
    features, labels = normal(250, 4), torch.randint(0, 30, (250,), generator=generator)
    batch, queue = features[:150].clone().requires_grad_(), features[150:].clone().requires_grad_()
    every = features.clone().requires_grad_()
    expected = rnc_loss(every, labels, reduction="none")[:150].mean()
    value = rnc_loss(batch, labels[:150], reference=(queue, labels[150:]))
    assert value.item() == pytest.approx(expected.item(), abs=1e-12)
    expected.backward()
    value.backward()
    torch.testing.assert_close(torch.cat([batch.grad, queue.grad]), every.grad, atol=1e-14, rtol=0)
    one = rnc_loss(batch[:1], labels[:1], reference=(queue, labels[150:]))
    assert one.item() > 0


def pair(shape, labels, value=0.0):
    return torch.full(shape, value), torch.zeros(labels, dtype=torch.int64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": torch.ones(3)}, r"weights: got shape \(3,\), torch.float32; allowed: a tensor of shape \(4,\)"),
        ({"weights": [1, 1, 1, 1]}, "weights: got list; allowed"),
        ({"weights": torch.tensor([1.0, -1, 1, 1])}, "weights: got -1 to 1; allowed: numbers of at least 0, one of"),
        ({"weights": torch.zeros(4)}, "weights: got 0 to 0; allowed"),
        ({"weights": torch.tensor([1.0, math.nan, 1, 1])}, "weights: got 1 NaN or infinite among 4 values"),
        ({"reference": torch.zeros(2, 3)}, "reference: got Tensor; allowed: a pair of embeddings and labels"),
        ({"reference": pair((2, 5), 2)}, r"reference\[0\]: got shape \(2, 5\); allowed: \(2, 3\)"),
        ({"reference": (torch.ones(2, 3), torch.ones(2))}, r"reference\[1\]: got torch.float32; allowed: torch.int64"),
        ({"reference": pair((2, 3), (2, 2))}, r"reference\[1\]: got labels of shape \(2,\); allowed: \(\)"),
        ({"reference": pair((2, 3), 3)}, r"reference\[1\]: got shape \(3,\); allowed: one row for each of the 2 rows"),
        ({"reference": pair((2, 3), 2, math.nan)}, r"reference\[0\]: got 6 NaN or infinite among 6 values"),
    ],
)  # fmt: skip
def test_bad_weights_and_references_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        rnc_loss(torch.zeros(4, 2, 3), torch.arange(4), **options)


# ---- a learnt temperature -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sim", SIMS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_temperature_gets_its_gradient(sim, reduction, weighted):
    features, labels = normal(6, 2).requires_grad_(), torch.randint(0, 4, (6,), generator=generator)
    temperature = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    options = {"feature_sim": sim, "reduction": reduction, "weights": torch.rand(6) + 0.1 if weighted else None}
    function = lambda v, t: rnc_loss(v, labels, temperature=t, **options)  # noqa: E731
    assert torch.autograd.gradcheck(function, (features, temperature))


@pytest.mark.parametrize("sim", SIMS)
@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_the_gradient_of_the_temperature_in_large_batches(sim, scale, shape):
    features = scale * normal(300, 8)
    labels = torch.randint(0, 50, (300,), generator=generator)
    gradients = []
    for v, reduction in ((features.float(), "mean"), (features, "none")):
        t = torch.full(shape, 1.7, dtype=v.dtype, requires_grad=True)
        rnc_loss(v, labels, temperature=t, feature_sim=sim, reduction=reduction).mean().backward()
        assert t.grad.shape == shape
        gradients.append(t.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("temperature", [-2.0, 0.0, math.inf])
def test_a_temperature_that_went_astray_gives_nan_where_nothing_is_refused(reduction, temperature):
    options = {"temperature": torch.tensor(temperature), "reduction": reduction}
    assert rnc_loss(normal(9, 3), torch.arange(9), validate=False, **options).isnan().all()
    with pytest.raises(ValueError, match="temperature: got"):
        rnc_loss(normal(9, 3), torch.arange(9), **options)
    with pytest.raises(ValueError, match=r"temperature: got .* or a floating-point tensor of one"):
        rnc_loss(normal(9, 3), torch.arange(9), validate=False, temperature=torch.ones(9), reduction=reduction)


def test_a_parameter_as_temperature_belongs_to_the_module():
    criterion = RnCLoss(torch.nn.Parameter(torch.tensor(2.0)))
    assert [name for name, _ in criterion.named_parameters()] == ["temperature"]
    assert "temperature=2.0" in repr(criterion)
    optimiser = torch.optim.SGD(criterion.parameters(), lr=0.1)
    criterion(normal(30, 3), torch.arange(30)).backward()
    optimiser.step()
    assert criterion.temperature.item() != 2.0
    with torch.no_grad():
        criterion.temperature.fill_(-1)
    with pytest.raises(ValueError, match=r"temperature: got tensor\(-1.\); allowed: a finite number above 0"):
        criterion(normal(30, 3), torch.arange(30))


# ---- transforms, copies and compilers --------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"feature_sim": "cosine"}, {"feature_sim": "l1"}, {"reduction": "sum"}])
def test_function_transforms(options):
    features, labels = normal(5, 12, 3), torch.randint(0, 5, (5, 12), generator=generator)
    one = lambda v, y: rnc_loss(v, y, **options)  # noqa: E731
    expected = [value_and_gradient(one, v, y) for v, y in zip(features, labels, strict=True)]
    values, gradients = (
        torch.tensor([v for v, _ in expected], dtype=torch.float64),
        torch.stack([g for _, g in expected]),
    )
    torch.testing.assert_close(vmap(one)(features, labels), values, atol=1e-12, rtol=0)
    torch.testing.assert_close(vmap(one, in_dims=(1, 0))(features.transpose(0, 1), labels), values, atol=1e-12, rtol=0)
    torch.testing.assert_close(grad(one)(features[0], labels[0]), gradients[0], atol=1e-14, rtol=0)
    torch.testing.assert_close(vmap(grad(one))(features, labels), gradients, atol=1e-14, rtol=0)
    outer = grad(lambda v: vmap(one)(v, labels).sum())(features)
    torch.testing.assert_close(outer, gradients, atol=1e-14, rtol=0)
    leaf = features.clone().requires_grad_()
    vmap(one)(leaf, labels).sum().backward()
    torch.testing.assert_close(leaf.grad, gradients, atol=1e-14, rtol=0)


def test_transforms_over_the_other_arguments():
    features, labels = normal(12, 3), torch.randint(0, 5, (12,), generator=generator)
    weights, temperatures = torch.rand(4, 12, generator=generator), torch.tensor([0.5, 1.0, 2.0]).double()
    got = vmap(lambda w: rnc_loss(features, labels, weights=w))(weights)
    assert got.tolist() == pytest.approx([rnc_loss(features, labels, weights=w).item() for w in weights])
    got = vmap(grad(lambda t: rnc_loss(features, labels, temperature=t)))(temperatures)
    expected = []
    for t in temperatures:
        t = t.clone().requires_grad_()
        rnc_loss(features, labels, temperature=t).backward()
        expected.append(t.grad.item())
    assert got.tolist() == pytest.approx(expected)
    encoder = torch.nn.Linear(3, 2).double()
    named = dict(encoder.named_parameters())
    got = grad(lambda p: rnc_loss(functional_call(encoder, p, (features,)), labels))(named)
    rnc_loss(encoder(features), labels).backward()
    for name, parameter in named.items():
        torch.testing.assert_close(got[name], parameter.grad)


def test_what_does_not_work_says_what_does():
    features, labels = normal(3, 12, 3), torch.randint(0, 5, (3, 12), generator=generator)
    one = lambda v: rnc_loss(v, labels[0])  # noqa: E731
    with pytest.raises(RuntimeError, match=r"no second derivatives; rnc_loss\(..., reduction='none'\).mean\(\) has"):
        jacrev(grad(one))(features[0])
    with pytest.raises(RuntimeError, match=r"no forward-mode derivatives; torch\.func\.grad"):
        torch.func.jvp(one, (features[0],), (features[0],))
    with pytest.raises(RuntimeError, match=r"torch\.vmap over rnc_loss needs reduction='mean' or 'sum'"):
        vmap(lambda v, y: rnc_loss(v, y, reduction="none"))(features, labels)
    with pytest.raises(ValueError, match="features: got 1 NaN or infinite among 36 values"):
        features[1, 2, 0] = math.nan
        vmap(rnc_loss)(features, labels)


def test_copies_and_pickles_are_the_same_loss():
    features, labels = normal(12, 3), torch.randint(0, 5, (12,), generator=generator)
    for criterion in (RnCLoss(0.7, "l2", "cosine", ties="exact"), RnCLoss(torch.nn.Parameter(torch.tensor(0.7)))):
        expected = criterion(features, labels).item()
        buffer = io.BytesIO()
        torch.save(criterion, buffer)
        buffer.seek(0)
        for other in (
            copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), torch.load(buffer, weights_only=False)
        ):  # fmt: skip
            assert other(features, labels).item() == expected
            assert repr(other) == repr(criterion)


def test_a_compiled_training_step_says_nothing():
    script = """
import torch
from rnclib import RnCLoss
torch.manual_seed(0)
encoder, criterion = torch.nn.Linear(8, 16), RnCLoss()
x, y = torch.randn(64, 8), torch.rand(64)
def step(x, y):
    return criterion(encoder(x), y)
step(x, y).backward()
expected = encoder.weight.grad.clone()
compiled = torch.compile(step, backend="aot_eager")
for n in (64, 50, 64):
    encoder.zero_grad()
    value = compiled(x[:n], y[:n])
    value.backward()
assert torch.equal(value, step(x, y)) and torch.allclose(encoder.weight.grad, expected)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


# ---- without float64 ------------------------------------------------------------------------------------------------


class RefuseFloat64(TorchDispatchMode):
    """As a device does that has no float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(value, torch.Tensor) and value.dtype == torch.float64:
                raise TypeError(f"float64 in {func}")
        return out


@pytest.mark.parametrize("sim", SIMS)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(
    ("kind", "spread", "M"),
    [("ages", 1.0, 20), ("tenths", 1.0, 150), ("2-d", 30.0, 150), ("bfloat16", 1.0, 150), ("tenths", 1e4, 150)],
)
def test_a_device_without_float64(monkeypatch, sim, reduction, kind, spread, M):
    ages = torch.randint(0, 30, (M,), generator=generator)
    labels = {
        "ages": ages, "tenths": ages.float() / 10, "2-d": torch.stack([ages, ages % 7], dim=1),
        "bfloat16": ages.bfloat16(),
    }[kind]  # fmt: skip
    features = (spread * normal(M, 8)).float()
    weights = torch.rand(M, generator=generator)
    value = lambda v: rnc_loss(v, labels, feature_sim=sim, reduction=reduction, weights=weights).mean()  # noqa: E731
    exact, exact_gradient = value_and_gradient(value, features)
    monkeypatch.setattr(checks, "WITHOUT_FLOAT64", {"cpu"})
    leaf = features.clone().requires_grad_()
    with RefuseFloat64():
        got = value(leaf)
        got.backward()
        bound = rnc_lower_bound(labels)
    assert bound >= 0
    assert got.item() == pytest.approx(exact, rel=1e-4)
    assert leaf.grad.isfinite().all()
    if spread <= 30:
        assert (leaf.grad.double() - exact_gradient).abs().max() <= 1e-3 * exact_gradient.abs().max()
