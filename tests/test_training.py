"""The training loop: its schedule, its random numbers, resumption, and several processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from rnclib import recipe, training
from rnclib.data.augment import Views
from rnclib.data.images import Images
from rnclib.encoders import ImageEncoder
from rnclib.loss import rnc_loss
from rnclib.other_losses import bin_edges, binned_supcon_loss, conr, ordinal_entropy, ranksim
from rnclib.recipe import Stage
from rnclib.training import Samples, learning_rate, predict, train

REGRESSION = Stage("l1", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4)
CONTRASTIVE = Stage(
    "rnc", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4, drop_last=True,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip


def problem(n: int = 27, seed: int = 0) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 5, generator=generator)
    return Samples(inputs, inputs @ torch.arange(1.0, 6.0) + 0.1 * torch.randn(n, generator=generator))


def network(out: int = 1, norm: bool = False, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(5, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.Tanh(), nn.Linear(16, out)]
    return nn.Sequential(*layers)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in model.state_dict().values()])


def error_of(model: nn.Module, samples: Samples) -> float:
    return float((predict(model, samples.inputs).squeeze(1) - samples.targets).abs().mean())


def epochs_in(checkpoint: Path) -> int:
    return len(torch.load(checkpoint, weights_only=True)["history"]["train_loss"])


class Killed(Exception):
    pass


def kill_after(epoch: int) -> Callable[..., None]:
    def on_epoch(number: int, error: float | None, kept: nn.Module) -> None:
        if number == epoch:
            raise Killed

    return on_epoch


@pytest.fixture
def eager(monkeypatch):
    """Write a checkpoint after every epoch."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)


# --- the schedule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_learning_rate_is_the_published_cosine(rate):
    stage = replace(REGRESSION, epochs=40, learning_rate=0.2, lr_decay_rate=rate)
    floor = 0.2 * rate**3
    assert learning_rate(stage, 40) == pytest.approx(floor)
    assert learning_rate(stage, 20) == pytest.approx((0.2 + floor) / 2)
    values = [learning_rate(stage, epoch) for epoch in range(1, 41)]
    assert values == sorted(values, reverse=True) and values[0] < 0.2


# --- the loop -------------------------------------------------------------------------------------------


def test_one_epoch_equals_a_literal_loop():
    inputs, labels, _ = training_set = problem()
    model, twin = network(), network()
    stage = replace(REGRESSION, epochs=2, batch_size=10)
    train(model, stage, training_set, seed=3)

    momentum = [torch.zeros_like(value) for value in twin.parameters()]
    for epoch in (1, 2):
        order = np.random.default_rng([3, epoch]).permutation(27)
        for batch in (order[:10], order[10:20], order[20:]):
            loss = (twin(inputs[batch]).squeeze(1) - labels[batch]).abs().mean()
            gradients = torch.autograd.grad(loss, list(twin.parameters()))
            with torch.no_grad():
                for value, gradient, m in zip(twin.parameters(), gradients, momentum, strict=True):
                    m.mul_(0.9).add_(gradient + 1e-4 * value)
                    value -= learning_rate(stage, epoch) * m
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=1e-6)


def test_rnc_epoch_equals_a_literal_loop():
    inputs, labels, _ = training_set = problem(20)
    model, twin = network(4), network(4)
    stage = replace(CONTRASTIVE, epochs=1, weight_decay=0.0, momentum=0.0)
    train(model, stage, training_set, seed=1)

    order = np.random.default_rng([1, 1]).permutation(20)
    for batch in (order[:8], order[8:16]):  # drop_last leaves out the four others
        features, y = twin(inputs[batch]).double(), labels[batch].double()
        terms = []
        for i in range(8):
            for j in range(8):
                if i != j:
                    s = {k: -torch.linalg.norm(features[i] - features[k]) / 2 for k in range(8) if k != i}
                    negatives = [s[k] for k in s if abs(y[i] - y[k]) >= abs(y[i] - y[j])]
                    terms.append(torch.logsumexp(torch.stack(negatives), 0) - s[j])
        gradients = torch.autograd.grad(torch.stack(terms).mean(), list(twin.parameters()))
        with torch.no_grad():
            for value, gradient in zip(twin.parameters(), gradients, strict=True):
                value -= learning_rate(stage, 1) * gradient
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_overfits_a_tiny_set(loss):
    inputs, labels, _ = problem(12)
    labels = (labels - labels.mean()) / labels.std()
    stage = replace(REGRESSION, loss=loss, epochs=400, batch_size=12, weight_decay=0.0)
    history = train(network(), stage, Samples(inputs, labels), seed=0)
    assert history.train_loss[-1] < 0.05 < history.train_loss[0]


def test_contrastive_training_orders_features_by_label():
    from rnclib.metrics import rank_agreement

    inputs, labels, _ = problem(64)
    stage = replace(CONTRASTIVE, epochs=150, batch_size=32)
    model = network(4)
    before = rank_agreement(model(inputs).detach().numpy(), labels.numpy())
    train(model, stage, Samples(inputs, labels), seed=0)
    assert rank_agreement(model(inputs).detach().numpy(), labels.numpy()) > max(0.9, before)


def test_the_epoch_of_least_validation_loss_is_kept():
    validation = problem(15, seed=9)
    model = network()
    stage = replace(REGRESSION, epochs=25, learning_rate=0.3)  # rough enough to go up and down
    history = train(model, stage, problem(40), validation, seed=0)
    found = error_of(model, validation)
    assert found == pytest.approx(min(history.val_loss), abs=1e-6)
    assert history.best_epoch == int(np.argmin(history.val_loss)) + 1 != 25


def test_a_validation_loss_that_is_no_number_is_never_the_least():
    class Unsure(nn.Module):
        """Gives NaN in evaluation mode until it has been evaluated twice."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.evaluations = nn.Linear(5, 1), 0

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            self.evaluations += not self.training
            nan = not self.training and self.evaluations < 3
            return self.linear(batch) * (math.nan if nan else 1.0)

    history = train(Unsure(), REGRESSION, problem(16), problem(16), seed=0)
    assert [math.isnan(value) for value in history.val_loss] == [True, True, False, False, False, False]
    assert history.best_epoch == 3 + int(np.argmin(history.val_loss[2:]))


def test_eval_batch_norm_keeps_its_statistics_and_still_trains():
    model = network(norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, replace(REGRESSION, batch_norm="eval"), problem(), seed=0)
    after = model.state_dict()
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["0.weight"], before["0.weight"])
    train(model, REGRESSION, problem(), seed=0)
    assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])


def test_divergence_is_an_error_that_says_when():
    with pytest.raises(FloatingPointError, match=r"training loss \(l2\) became (nan|inf) in epoch \d"):
        train(network(), replace(REGRESSION, loss="l2", learning_rate=1e6, epochs=9), problem(), seed=0)


def test_no_run_may_take_no_step():
    with pytest.raises(ValueError, match=r"batch_size: got 8 with drop_last and 5 samples.*allowed: at most 5"):
        train(network(4), CONTRASTIVE, problem(5), seed=0)


def test_random_numbers_are_keyed_and_leave_the_global_state_alone():
    samples = problem()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second, other = network(), network(), network()
    train(first, REGRESSION, samples, seed=5)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    train(second, REGRESSION, samples, seed=5)
    train(other, REGRESSION, samples, seed=6)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    torch.manual_seed(0)
    train(network(), REGRESSION, samples, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)


class Counted:
    """Inputs that are others in each epoch."""

    def __init__(self, values: torch.Tensor, epoch: int | None = None) -> None:
        self.values, self.epoch = values, epoch

    def at_epoch(self, epoch: int) -> Counted:
        return Counted(self.values, epoch)

    def __getitem__(self, index: np.ndarray) -> torch.Tensor:
        assert self.epoch is not None
        return self.values[index] + self.epoch


def test_inputs_that_change_with_the_epoch_are_asked_for_each_epoch():
    inputs, labels, _ = problem()
    seen = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 1)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(batch.detach().mean().item())
            return self.linear(batch)

    train(Recorder(), replace(REGRESSION, batch_size=27, epochs=3), Samples(Counted(inputs), labels), seed=0)
    assert seen == pytest.approx([inputs.mean().item() + epoch for epoch in (1, 2, 3)], abs=1e-5)


def test_images_are_trained_on_two_views_and_resume_as_if_undisturbed(tmp_path, eager):
    pixels = torch.randint(0, 256, (24, 18, 18, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = Views(Images(pixels, 16), np.arange(20), seed=5, n_views=2)
    labels = torch.arange(20.0)

    def run(**options) -> tuple[torch.Tensor, list[float]]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = ImageEncoder("small")
        history = train(encoder, replace(CONTRASTIVE, epochs=3), Samples(views, labels), seed=1, **options)
        return weights(encoder), history.train_loss

    expected, losses = run()

    with pytest.raises(Killed):
        run(on_epoch=kill_after(2), checkpoint=tmp_path / "run.pt")
    resumed, again = run(checkpoint=tmp_path / "run.pt")
    assert torch.equal(resumed, expected) and again == losses and len(losses) == 3


# --- resumption -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", range(1, 7))
@pytest.mark.parametrize("stage", [REGRESSION, CONTRASTIVE], ids=["l1", "rnc"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_numbers(tmp_path, eager, stage, epoch):
    training_set, validation = problem(40), problem(15, seed=9) if stage.loss == "l1" else None
    out = 1 if stage.loss == "l1" else 4
    undisturbed = network(out, norm=True)
    expected = train(undisturbed, stage, training_set, validation, seed=2)

    checkpoint = tmp_path / "run.pt"
    with pytest.raises(Killed):
        train(
            network(out, norm=True), stage, training_set, validation, seed=2, checkpoint=checkpoint,
            on_epoch=kill_after(epoch),
        )  # fmt: skip
    assert checkpoint.exists() == (epoch > 1)  # killed before this epoch's own is written
    resumed, told = network(out, norm=True, seed=99 if checkpoint.exists() else 0), []
    history = train(
        resumed, stage, training_set, validation, seed=2, checkpoint=checkpoint,
        on_epoch=lambda number, *_: told.append(number),
    )  # fmt: skip
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert (history.train_loss, history.val_loss) == (expected.train_loss, expected.val_loss)
    assert history.best_epoch == expected.best_epoch
    assert told == list(range(max(1, epoch - 1), 7))  # the last epoch done before, then those done now


@pytest.mark.parametrize(
    "options",
    [{"optimizer": "adamw"}, {"schedule": "one-cycle", "lr_decay_rate": 0.0}, {"average": 0.8}],
    ids=lambda options: next(iter(options)),
)
def test_what_an_option_remembers_is_in_the_checkpoint(tmp_path, eager, options):
    stage = replace(REGRESSION, **options)
    undisturbed, resumed = network(norm=True), network(norm=True, seed=99)
    expected = train(undisturbed, stage, problem(40), problem(15, seed=9), seed=2)
    checkpoint = tmp_path / "run.pt"
    with pytest.raises(Killed):
        train(
            network(norm=True), stage, problem(40), problem(15, seed=9), seed=2, checkpoint=checkpoint,
            on_epoch=kill_after(4),
        )  # fmt: skip
    history = train(resumed, stage, problem(40), problem(15, seed=9), seed=2, checkpoint=checkpoint)
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert (history.train_loss, history.val_loss) == (expected.train_loss, expected.val_loss)


def test_dropout_draws_anew_in_each_epoch_and_for_each_seed():
    def dropped(seed: int) -> list[torch.Tensor]:
        found = []
        model = nn.Sequential(nn.Linear(5, 40), nn.Dropout(0.5), nn.Linear(40, 1))
        model[1].register_forward_hook(lambda module, given, got: found.append(got == 0))
        train(model, replace(REGRESSION, batch_size=27, epochs=2), problem(), seed=seed)
        return found

    first, second = dropped(0)
    torch.manual_seed(77)
    again, other = dropped(0)[0], dropped(1)[0]
    assert torch.equal(first, again) and not torch.equal(first, second) and not torch.equal(first, other)


def test_dropout_draws_the_same_after_a_resumption(tmp_path, eager):
    def run(**options: Any) -> torch.Tensor:
        model = nn.Sequential(network()[0], nn.Dropout(0.5), nn.Tanh(), network()[3])
        train(model, REGRESSION, problem(), seed=2, **options)
        return weights(model)

    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "run.pt", on_epoch=kill_after(3))
    torch.manual_seed(77)
    assert torch.equal(run(checkpoint=tmp_path / "run.pt"), run())


def test_a_killed_process_resumes(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time, torch
        sys.path.insert(0, {tests!r})
        from test_training import REGRESSION, network, problem, weights
        from rnclib import training
        from dataclasses import replace
        torch.set_num_threads(1)
        training.CHECKPOINT_SECONDS = 0
        slow = (lambda *_: time.sleep(0.05)) if sys.argv[2] == "slow" else None
        model = network()
        training.train(model, replace(REGRESSION, epochs=30), problem(), seed=4, checkpoint=sys.argv[1], on_epoch=slow)
        print(weights(model).sum().item().hex())
        """
    ).format(tests=os.path.dirname(__file__))

    def start(checkpoint, speed):
        return subprocess.Popen(
            [sys.executable, "-c", script, str(checkpoint), speed], stdout=subprocess.PIPE, text=True
        )

    victim = start(tmp_path / "run.pt", "slow")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    assert victim.communicate()[0] == ""
    before = epochs_in(tmp_path / "run.pt")
    resumed = start(tmp_path / "run.pt", "fast")
    undisturbed = network()
    train(undisturbed, replace(REGRESSION, epochs=30), problem(), seed=4)
    assert resumed.communicate()[0].strip() == weights(undisturbed).sum().item().hex()
    assert 1 <= before < 30 == epochs_in(tmp_path / "run.pt")


def test_a_checkpoint_is_written_when_its_time_has_come(tmp_path, monkeypatch):
    clock = iter(range(0, 1000, 5))  # seconds that pass from one look at the clock to the next
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    written = []
    monkeypatch.setattr(
        training, "write_state", lambda path, state: written.append(len(state["history"]["train_loss"]))
    )
    train(network(), REGRESSION, problem(), seed=0, checkpoint=tmp_path / "run.pt")
    assert written == [2, 4, 6]  # 20 seconds after the last: two looks an epoch, and one after writing


def test_a_checkpoint_holds_no_code_and_belongs_to_its_run(tmp_path, eager):
    checkpoint = tmp_path / "run.pt"
    train(network(), REGRESSION, problem(), seed=0, checkpoint=checkpoint)
    assert set(torch.load(checkpoint, weights_only=True)) == {"identity", "model", "optimizer", "history", "best"}
    others = [(REGRESSION, problem(), 1), (replace(REGRESSION, epochs=7), problem(), 0), (REGRESSION, problem(28), 0)]
    for stage, training_set, seed in others:
        with pytest.raises(ValueError, match=r"checkpoint: got .*run\.pt, of another run; allowed: "):
            train(network(), stage, training_set, seed=seed, checkpoint=checkpoint)


def test_a_truncated_checkpoint_is_reported_and_training_starts_again(tmp_path, eager):
    checkpoint = tmp_path / "run.pt"
    expected = network()
    train(expected, REGRESSION, problem(), seed=0, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    model = network()
    with pytest.warns(UserWarning, match=r"run\.pt cannot be read"):
        train(model, REGRESSION, problem(), seed=0, checkpoint=checkpoint)
    assert torch.equal(weights(model), weights(expected))


# --- what is told of an epoch ---------------------------------------------------------------------------


@pytest.mark.parametrize("average", [None, 0.8])
def test_each_epoch_is_told_with_the_error_of_its_predictions(average):
    model, validation, told, found = network(), problem(15, seed=9), [], []
    stage = replace(REGRESSION, loss="l2", average=average)

    def on_epoch(number: int, error: float | None, kept: nn.Module) -> None:
        told.append((number, error))
        found.append(error_of(kept, validation))

    history = train(model, stage, problem(40), validation, seed=0, on_epoch=on_epoch)
    assert [number for number, _ in told] == [1, 2, 3, 4, 5, 6]
    errors = [error for _, error in told]
    assert errors == pytest.approx(found, rel=1e-5)
    # of the weights that are kept; their error is no loss of this stage
    assert errors[history.best_epoch - 1] == pytest.approx(error_of(model, validation), rel=1e-5)
    assert errors != pytest.approx(history.val_loss, rel=1e-3)


def test_without_a_validation_set_there_is_no_error_to_tell():
    told = []
    train(network(4), CONTRASTIVE, problem(), seed=0, on_epoch=lambda *one: told.append(one[:2]))
    assert told == [(epoch, None) for epoch in range(1, 7)]


def test_what_on_epoch_raises_ends_the_training():
    model, told = network(), []

    def on_epoch(number: int, error: float | None, kept: nn.Module) -> None:
        told.append(number)
        if number == 2:
            raise Killed

    with pytest.raises(Killed):
        train(model, REGRESSION, problem(), problem(), seed=0, on_epoch=on_epoch)
    assert told == [1, 2]


# --- options of a stage ---------------------------------------------------------------------------------


def test_adamw_steps_are_its_formula():
    inputs, labels, _ = training_set = problem()
    stage = replace(REGRESSION, optimizer="adamw", epochs=2, batch_size=27, weight_decay=0.1)
    model, twin = network(), network()
    train(model, stage, training_set, seed=3)

    first, second = ([torch.zeros_like(value) for value in twin.parameters()] for _ in range(2))
    for step in (1, 2):  # an epoch has one batch
        rate = learning_rate(stage, step)
        loss = (twin(inputs).squeeze(1) - labels).abs().mean()
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for value, gradient, m, v in zip(twin.parameters(), gradients, first, second, strict=True):
                m.mul_(0.9).add_(0.1 * gradient)
                v.mul_(0.999).add_(0.001 * gradient**2)
                value *= 1 - rate * 0.1
                value -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(weights(model), weights(twin), rtol=0, atol=2e-6)


def test_one_cycle_has_the_rates_of_torch(monkeypatch):
    stage = replace(REGRESSION, schedule="one-cycle", lr_decay_rate=0.0, epochs=5)
    optimizers, rates = [], []
    inner = training._optimizer
    monkeypatch.setattr(training, "_optimizer", lambda *rest: optimizers.append(inner(*rest)) or optimizers[-1])

    class Watched(nn.Linear):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            rates.append(optimizers[-1].param_groups[0]["lr"])
            return super().forward(batch)

    train(Watched(5, 1), stage, problem(), seed=0)

    steps = 5 * 4  # 27 samples in batches of 8
    other = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    cycle = torch.optim.lr_scheduler.OneCycleLR(other, 0.05, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(other.param_groups[0]["lr"])
        other.step()
        cycle.step()
    assert rates == pytest.approx(expected, rel=1e-12)
    top = int(np.argmax(rates))
    assert rates[0] == pytest.approx(0.05 / 25) and max(rates) == pytest.approx(0.05, rel=0.01)
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)


def test_the_kept_weights_are_a_moving_average():
    inputs, labels, _ = training_set = problem()
    validation = problem(15, seed=9)
    stage = replace(REGRESSION, loss="l2", average=0.8, epochs=2, batch_size=10, momentum=0.0, weight_decay=0.0)
    without, judged, plain = nn.Linear(5, 1), nn.Linear(5, 1), nn.Linear(5, 1)
    judged.load_state_dict(without.state_dict())
    plain.load_state_dict(without.state_dict())
    w, b = without.weight.detach().clone()[0], without.bias.detach().clone()[0]
    train(without, stage, training_set, seed=3)
    history = train(judged, stage, training_set, validation, seed=3)
    train(plain, replace(stage, average=None), training_set, seed=3)

    averaged, losses, done = None, [], 0
    for epoch in (1, 2):
        order = np.random.default_rng([3, epoch]).permutation(27)
        for batch in (order[:10], order[10:20], order[20:]):
            x, y = inputs[batch], labels[batch]
            off = x @ w + b - y
            rate = learning_rate(stage, epoch)
            w, b = w - rate * 2 * (off[:, None] * x).mean(0), b - rate * 2 * off.mean()
            decay = min(0.8, (1 + done) / (10 + done)) if done else 0.0  # it rises, so that early weights are forgotten
            averaged = (
                (w, b)
                if averaged is None
                else tuple(decay * before + (1 - decay) * now for before, now in zip(averaged, (w, b), strict=True))
            )
            done += 1
        losses.append(float(((validation.inputs @ averaged[0] + averaged[1] - validation.targets) ** 2).mean()))
    expected = torch.cat([averaged[0], averaged[1][None]]).double()
    torch.testing.assert_close(weights(without), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(weights(plain), torch.cat([w, b[None]]).double(), rtol=0, atol=1e-5)
    assert history.val_loss == pytest.approx(losses, rel=1e-4) and history.best_epoch == 1 + int(np.argmin(losses))


def test_the_moving_average_reaches_its_decay():
    ramp = training._ramped_average(0.9)
    for done, decay in ((1, 2 / 11), (8, 0.5), (80, 0.9), (1000, 0.9)):
        averaged = [torch.zeros(2)]
        ramp(averaged, [torch.ones(2)], torch.tensor(done))
        assert averaged[0].tolist() == pytest.approx([1 - decay] * 2)


def test_a_stage_can_keep_its_last_weights():
    training_set, validation = problem(), problem(15, seed=9)
    stage = replace(REGRESSION, learning_rate=0.5, epochs=8)
    last, best, alone = network(), network(), network()
    told = train(best, stage, training_set, validation, seed=0)
    kept = train(last, replace(stage, keep="last"), training_set, validation, seed=0)
    train(alone, stage, training_set, seed=0)
    assert kept.val_loss == told.val_loss and told.best_epoch < kept.best_epoch == 8
    assert torch.equal(weights(last), weights(alone)) and not torch.equal(weights(last), weights(best))


def test_batches_of_a_one_cycle_schedule_are_as_equal_as_can_be(monkeypatch):
    stage = replace(REGRESSION, schedule="one-cycle", lr_decay_rate=0.0, batch_size=8)
    for n, sizes in ((17, [6, 5, 6]), (16, [8, 8]), (9, [4, 5]), (5, [5])):
        stop, batches = training._batches(stage, n, 1)
        assert stop == n and [end - start for start, end in batches] == sizes
        assert [start for start, _ in batches] == [0, *(end for _, end in batches[:-1])]
    # others keep the rest in the last batch, as records have it
    assert training._batches(replace(REGRESSION, batch_size=8), 17, 1) == (17, [(0, 8), (8, 16), (16, 17)])
    assert training._batches(replace(stage, drop_last=True), 17, 1) == (16, [(0, 8), (8, 16)])


@pytest.mark.parametrize("regulariser", [None, "rnc", "ranksim", "conr"])
def test_several_views_of_a_sample_are_each_predicted(regulariser):
    """As if the second views were samples of their own, but that Rank-N-Contrast knows which belong together."""
    generator = torch.Generator().manual_seed(0)
    views, labels = torch.randn(12, 2, 5, generator=generator), torch.linspace(-1, 1, 12)
    term = {"regulariser": regulariser, "regulariser_weight": 0.3} if regulariser else {}
    term |= {"window": 0.3} if regulariser == "conr" else {}
    stage = replace(REGRESSION, batch_size=24, epochs=1, learning_rate=0.0, loss="l2", **term)
    model = network()
    found = train(model, stage, Samples(views, labels), seed=0).train_loss[0]
    flat = model(views.reshape(24, 5)).detach()
    features = model[:-1](views.reshape(24, 5)).detach()
    twice = labels.repeat_interleave(2)
    expected = ((flat.reshape(-1) - twice) ** 2).mean()
    if regulariser == "rnc":
        expected = expected + 0.3 * rnc_loss(features.reshape(12, 2, -1), labels, ties="exact")
    elif regulariser:
        more = (flat.reshape(-1), 0.3) if regulariser == "conr" else ()
        order = np.random.default_rng([0, 1]).permutation(12)
        index = np.repeat(2 * order, 2) + np.tile([0, 1], 12)  # RankSim takes the first of equal labels
        more = (more[0][index], more[1]) if more else ()
        expected = expected + 0.3 * REGULARISERS[regulariser](features[index], twice[index], *more)
    assert found == pytest.approx(expected.item(), rel=1e-4)


def test_statistics_of_batch_norm_are_averaged_too():
    model = network(norm=True)
    train(model, replace(REGRESSION, average=0.5, batch_size=27, epochs=2), problem(), seed=0)
    plain = network(norm=True)
    means = []
    train(
        plain, replace(REGRESSION, batch_size=27, epochs=2), problem(), seed=0,
        on_epoch=lambda *_: means.append(plain[1].running_mean.clone()),
    )  # fmt: skip
    torch.testing.assert_close(model[1].running_mean, 2 / 11 * means[0] + 9 / 11 * means[1])


# --- the other methods ----------------------------------------------------------------------------------


def test_supcon_bins_the_labels_of_the_whole_training_set():
    inputs, labels, _ = training_set = problem()
    stage = replace(CONTRASTIVE, loss="supcon", label_diff=None, feature_sim=None, n_bins=3, epochs=1, weight_decay=0.0)
    edges = bin_edges(labels, 3)
    still = train(network(4), replace(stage, learning_rate=0.0), training_set, seed=1)
    literal = [
        binned_supcon_loss(network(4)(inputs[part]), labels[part], edges, 2.0).item()
        for part in np.split(np.random.default_rng([1, 1]).permutation(27)[:24], 3)
    ]
    assert still.train_loss[0] == pytest.approx(np.mean(literal), rel=1e-5)


REGULARISERS = {"ordinal entropy": ordinal_entropy, "ranksim": ranksim, "rnc": rnc_loss, "conr": conr}


@pytest.mark.parametrize("name", recipe.REGULARISERS)
def test_a_regulariser_is_added_with_its_weight(name):
    inputs, labels, _ = samples = problem()
    stage = replace(REGRESSION, epochs=1, batch_size=27, learning_rate=0.0)
    plain = train(network(), stage, samples, samples, seed=0)
    model = network()
    window = 0.3 if name == "conr" else None
    with_term = replace(stage, regulariser=name, regulariser_weight=0.5, window=window)
    history = train(model, with_term, samples, samples, seed=0)
    order = np.random.default_rng([0, 1]).permutation(27)
    more = () if window is None else (model(inputs[order]), window)
    term = REGULARISERS[name](model[:-1](inputs[order]), labels[order], *more).item()
    expected = plain.train_loss[0] + 0.5 * term
    assert term != 0
    assert history.train_loss[0] == pytest.approx(expected, rel=1e-5)
    assert history.val_loss == plain.val_loss  # selection by the regression loss alone
    assert not model[-1]._forward_pre_hooks
    trained = train(network(), replace(with_term, learning_rate=0.05, epochs=3), samples, seed=0)
    without = train(network(), replace(stage, learning_rate=0.05, epochs=3), samples, seed=0)
    assert trained.train_loss[-1] != without.train_loss[-1]


# --- several processes ----------------------------------------------------------------------------------


def photographs(loss: str) -> tuple[nn.Module, Stage, Samples]:
    """A network on random views of 27 random images, its batch norm as it was initialised."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 18, 18, 3), dtype=torch.uint8, generator=generator)
    stage = replace(CONTRASTIVE if loss == "rnc" else REGRESSION, batch_norm="eval", epochs=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ImageEncoder("small")
        model = encoder if loss == "rnc" else nn.Sequential(encoder, nn.Linear(encoder.out_features, 1))
    views = Views(Images(pixels, 16), np.arange(27), seed=2, n_views=2 if loss == "rnc" else 1)
    return model, stage, Samples(views, torch.linspace(-1, 1, 27))


KINDS = ("l1", "rnc", "l1 of images", "rnc of images")


def task(kind: str) -> tuple[nn.Module, Stage, Samples]:
    loss, _, of = kind.partition(" of ")
    if of:
        return photographs(loss)
    return (network(4), CONTRASTIVE, problem()) if loss == "rnc" else (network(), REGRESSION, problem())


def with_two_processes(script: str, folder: Path) -> None:
    """Run a script's function ``work(fabric, folder)`` in two processes."""
    start = f"""
        if __name__ == "__main__":
            sys.path.insert(0, {os.path.dirname(__file__)!r})
            Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(work, {str(folder)!r})
        """
    head = (
        f"import sys, torch; sys.path.insert(0, {os.path.dirname(__file__)!r})\nfrom lightning_fabric import Fabric\n"
    )
    program = folder / "two.py"
    program.write_text(head + textwrap.dedent(script) + textwrap.dedent(start))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(program)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory) -> Path:
    """Folder with what two processes have trained: each kind of task, and one that was killed and resumed."""
    folder = tmp_path_factory.mktemp("two")
    script = """
        from test_training import KINDS, REGRESSION, Killed, kill_after, network, problem, task, weights
        from dataclasses import replace
        from rnclib import training
        from rnclib.training import train

        def work(fabric, folder):
            torch.set_num_threads(1)
            found = {}
            for kind in KINDS:
                model, stage, samples = task(kind)
                history = train(model, stage, samples, seed=2, fabric=fabric)
                found[kind] = {"weights": weights(model), "loss": history.train_loss}
            if fabric.is_global_zero:
                torch.save(found, folder + "/two.pt")

            training.CHECKPOINT_SECONDS = 0
            path = folder + f"/{fabric.global_rank}.pt"
            stage = replace(REGRESSION, drop_last=True)
            run = lambda model, **options: train(
                model, stage, problem(), problem(), seed=2, fabric=fabric, **options
            )
            try:
                run(network(norm=True), checkpoint=path, on_epoch=kill_after(4))
            except Killed:
                pass
            fabric.barrier()
            training.CHECKPOINT_SECONDS = 1000
            model, other, told = network(norm=True), network(norm=True), []
            histories = [
                run(model, checkpoint=path, on_epoch=lambda number, *_: told.append(number)), run(other)
            ]
            result = {
                "resumed": weights(model), "whole": weights(other), "loss": [h.train_loss for h in histories],
                "told": told,
            }
            torch.save(result, folder + f"/result{fabric.global_rank}.pt")
        """
    with_two_processes(script, folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_reach_the_weights_of_one(of_two_processes, kind):
    """Without batch norm or with it frozen, since its statistics would be each process's own; to rounding."""
    two = torch.load(of_two_processes / "two.pt", weights_only=True)[kind]
    model, stage, samples = task(kind)  # 27 samples: the last batch of l1 is uneven
    one = train(model, stage, samples, seed=2)
    torch.testing.assert_close(two["weights"], weights(model), rtol=0, atol=2e-6)
    torch.testing.assert_close(torch.tensor(two["loss"]), torch.tensor(one.train_loss), rtol=1e-5, atol=1e-6)


def test_processes_resume_together_and_end_with_the_same_weights(of_two_processes):
    """Each process has a folder of its own, and only the first finds the checkpoint; batch norm is each one's own."""
    assert (of_two_processes / "0.pt").exists() and not (of_two_processes / "1.pt").exists()
    first, second = (torch.load(of_two_processes / f"result{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["told"] == second["told"] == [3, 4, 5, 6]
    assert torch.equal(first["resumed"], second["resumed"]) and torch.equal(first["whole"], second["whole"])
    torch.testing.assert_close(first["resumed"], first["whole"], rtol=0, atol=1e-6)
    assert first["loss"][0] == pytest.approx(first["loss"][1], rel=1e-6)


class TwoProcesses:
    """As much of a Fabric as a loop looks at before it trains."""

    world_size, global_rank, is_global_zero, device = 2, 0, True, torch.device("cpu")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (replace(REGRESSION, regulariser="ranksim", regulariser_weight=1.0), "fabric: got 2 processes with 'ranksim'"),
        (
            replace(CONTRASTIVE, loss="supcon", label_diff=None, feature_sim=None, n_bins=3),
            "fabric: got 2 processes with 'supcon'",
        ),
        (replace(REGRESSION, batch_size=13), "targets: got 1 samples in the last batch for 2 processes"),
    ],
)
def test_what_several_processes_cannot_share_is_refused(stage, message):
    with pytest.raises(ValueError, match=rf"^{message}.*; allowed: "):
        train(network(4), stage, problem(), seed=0, fabric=TwoProcesses())


@pytest.mark.parametrize("loss", ["l1", "rnc"])
def test_training_in_bfloat16_follows_that_in_float32(loss):
    model, stage, samples = photographs(loss)
    before = weights(model)
    exact = train(model, stage, samples, seed=2)
    rounded_model = photographs(loss)[0]
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    rounded = train(rounded_model, stage, samples, seed=2, fabric=fabric)
    assert all(value.dtype == torch.float32 for value in rounded_model.parameters())
    # bfloat16 has eight bits: losses to a percent, and steps of training that go the same way
    torch.testing.assert_close(torch.tensor(rounded.train_loss), torch.tensor(exact.train_loss), rtol=0.01, atol=0)
    steps = weights(model) - before, weights(rounded_model) - before
    assert torch.cosine_similarity(*steps, dim=0) > 0.95
    assert rounded.train_loss != exact.train_loss


# --- prediction, and files of weights -------------------------------------------------------------------


def test_predict_is_in_order_and_leaves_the_mode_alone():
    inputs = problem().inputs
    model = network(norm=True)
    index = np.array([4, 4, 0, 26])
    output = predict(model, inputs, index, batch_size=3)
    assert model.training
    torch.testing.assert_close(output, model.eval()(inputs)[index])


def test_a_file_of_weights_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "folder" / "weights.pt"
    assert training.read_state(path, "{path} {error}") is None  # there is none, and no warning
    training.write_state(path, {"a": torch.ones(2)})
    monkeypatch.setattr(training.os, "replace", lambda *_: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception, match="killed"):
        training.write_state(path, {"a": torch.zeros(2)})
    assert training.read_state(path, "{path} {error}")["a"].tolist() == [1, 1]


# --- weights of samples, several targets, and the end of training -------------------------------------------------

ONE_STEP = Stage("l1", epochs=1, batch_size=27, learning_rate=0.1, lr_decay_rate=1.0, weight_decay=0.0, momentum=0.0)


def one_step(stage: Stage, samples: Samples, loss_of: Callable[[torch.Tensor], torch.Tensor], out: int) -> None:
    """One step of gradient descent on all samples is that of a loss which is written out."""
    model, literal = network(out=out), network(out=out)
    train(model, stage, samples, seed=0)
    loss_of(literal(samples.inputs)).backward()
    with torch.no_grad():
        for parameter in literal.parameters():
            parameter -= stage.learning_rate * parameter.grad
    torch.testing.assert_close(weights(model), weights(literal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
@pytest.mark.parametrize("n_targets", [1, 3])
def test_weights_and_several_targets_are_those_of_a_literal_loss(loss, n_targets):
    x, y = problem()[:2]
    y = y if n_targets == 1 else torch.stack([y, -y, y.square()], dim=1)
    w = torch.rand(27, generator=torch.Generator().manual_seed(1)) + 0.1
    each = {"l1": nn.functional.l1_loss, "l2": nn.functional.mse_loss, "huber": nn.functional.smooth_l1_loss}[loss]

    def literal(predictions: torch.Tensor) -> torch.Tensor:
        terms = [w[i] * each(predictions[i], y[i].reshape(-1), reduction="sum") / n_targets for i in range(len(w))]
        return sum(terms, torch.zeros(())) / w.sum()

    one_step(replace(ONE_STEP, loss=loss, learning_rate=0.01), Samples(x, y, 5 * w), literal, n_targets)


def test_the_contrastive_loss_has_weights_and_distances_over_several_targets():
    x, y = problem()[:2]
    w = torch.rand(27, generator=torch.Generator().manual_seed(1)) + 0.1
    both = torch.stack([y, y.square()], dim=1)
    stage = replace(CONTRASTIVE, epochs=1, batch_size=27, lr_decay_rate=1.0, weight_decay=0.0, momentum=0.0)
    one_step(stage, Samples(x, both, w), lambda features: rnc_loss(features, both, weights=w, ties="exact"), 8)


def test_joint_training_weighs_both_terms():
    x, y = problem()[:2]
    w = torch.rand(27, generator=torch.Generator().manual_seed(1)) + 0.1
    stage = replace(ONE_STEP, regulariser="rnc", regulariser_weight=0.7, ties="rounding")
    model, literal = network(), network()
    train(model, stage, Samples(x, y, w), seed=0)
    features = literal[:-1](x)
    off = (literal[-1](features)[:, 0] - y).abs()
    ((w * off).sum() / w.sum() + 0.7 * rnc_loss(features, y, weights=w)).backward()
    with torch.no_grad():
        for parameter in literal.parameters():
            parameter -= stage.learning_rate * parameter.grad
    torch.testing.assert_close(weights(model), weights(literal), rtol=1e-5, atol=1e-6)


def test_losses_without_weights_or_for_one_target_say_so():
    x, y = problem()[:2]
    supcon = replace(CONTRASTIVE, loss="supcon", label_diff=None, feature_sim=None, n_bins=3)
    ranked = replace(REGRESSION, regulariser="ranksim", regulariser_weight=1.0)
    for stage, name in ((supcon, "supcon"), (ranked, "ranksim")):
        with pytest.raises(ValueError, match=f"^weights: got some with '{name}'; allowed: None"):
            train(network(), stage, Samples(x, y, torch.ones(27)), seed=0)
        with pytest.raises(ValueError, match=rf"^targets: got shape \(27, 2\) with '{name}'; allowed: \(n,\)"):
            train(network(2), stage, Samples(x, torch.stack([y, y], dim=1)), seed=0)


def test_training_ends_once_validation_has_not_improved_for_some_epochs():
    still = replace(REGRESSION, epochs=30, learning_rate=0.0, patience=4)  # never improves after the first epoch
    history = train(network(), still, problem(), problem(9, 1), seed=0)
    assert (len(history.train_loss), history.best_epoch) == (5, 1)
    improves = train(network(), replace(REGRESSION, patience=4), problem(), problem(9, 1), seed=0)
    assert len(improves.train_loss) == 6  # to the last
    with pytest.raises(ValueError, match=r"^patience: got 3; allowed: None with keep='last' or schedule='one-cycle'"):
        replace(REGRESSION, patience=3, keep="last")


def test_a_killed_training_with_patience_ends_where_it_would_have(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    still = replace(REGRESSION, epochs=30, learning_rate=0.0, patience=4)
    for epoch in (2, 5):  # in the midst, and after its last epoch
        path = tmp_path / f"{epoch}.pt"
        with pytest.raises(Killed):
            train(network(), still, problem(), problem(9, 1), seed=0, checkpoint=path, on_epoch=kill_after(epoch))
        history = train(network(), still, problem(), problem(9, 1), seed=0, checkpoint=path)
        assert (len(history.train_loss), history.best_epoch) == (5, 1)


def test_an_encoder_with_a_validation_set_keeps_the_epoch_of_the_lowest_contrastive_loss():
    seen: list[float] = []
    val = problem(9, 1)

    def measured(number: int, error: float | None, kept: nn.Module) -> None:
        assert error is None  # features predict nothing
        seen.append(float(rnc_loss(predict(kept, val.inputs), val.targets, ties="exact")))

    model = network(8)
    history = train(model, replace(CONTRASTIVE, patience=3, epochs=12), problem(), val, seed=0, on_epoch=measured)
    assert history.val_loss == pytest.approx(seen, rel=1e-5)
    assert history.best_epoch == 1 + int(np.argmin(seen))
    assert float(rnc_loss(predict(model, val.inputs), val.targets, ties="exact")) == pytest.approx(min(seen), rel=1e-5)
