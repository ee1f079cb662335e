"""The training loop: its schedule, its random numbers, resumption, and several processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from rnclib.data.augment import Views
from rnclib.data.images import Images
from rnclib.encoders import ImageEncoder
from rnclib.other_losses import bin_edges, binned_supcon_loss
from rnclib.training import REGULARISERS, Stage, learning_rate, predict, train

REGRESSION = Stage("l1", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4)
CONTRASTIVE = Stage(
    "rnc", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4, drop_last=True,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip


def problem(n: int = 27, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 5, generator=generator)
    return inputs, inputs @ torch.arange(1.0, 6.0) + 0.1 * torch.randn(n, generator=generator)


def network(out: int = 1, norm: bool = False, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(5, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.Tanh(), nn.Linear(16, out)]
    return nn.Sequential(*layers)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.double().reshape(-1) for value in model.state_dict().values()])


# --- the stage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "L1"),
        ("epochs", 0),
        ("batch_size", 2.5),
        ("learning_rate", math.nan),
        ("weight_decay", -1e-5),
        ("lr_decay_rate", math.inf),
        ("batch_norm", "frozen"),
        ("temperature", 2.0),
        ("momentum", "0.9"),
    ],
)
def test_a_bad_hyperparameter_is_named(name, value):
    with pytest.raises(ValueError, match=rf"{name}: got .*; allowed: "):
        replace(REGRESSION, **{name: value})


@pytest.mark.parametrize(
    ("loss", "name", "value"),
    [
        ("rnc", "temperature", 0.0),
        ("rnc", "temperature", -1.0),
        ("rnc", "label_diff", "l7"),
        ("rnc", "feature_sim", "dot"),
        ("supcon", "n_bins", 1),
        ("l1", "regulariser_weight", math.nan),
    ],
)
def test_a_bad_option_of_a_loss_is_named(loss, name, value):
    stages = {
        "rnc": CONTRASTIVE,
        "supcon": replace(CONTRASTIVE, loss="supcon", label_diff=None, feature_sim=None, n_bins=3),
        "l1": replace(REGRESSION, regulariser="ranksim", regulariser_weight=1.0),
    }
    with pytest.raises(ValueError, match=rf"{name}: got .*; allowed: "):
        replace(stages[loss], **{name: value})


def test_contrastive_options_are_required_with_rnc():
    with pytest.raises(ValueError, match="temperature: got None"):
        replace(CONTRASTIVE, temperature=None)


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
    inputs, labels = problem()
    model, twin = network(), network()
    stage = replace(REGRESSION, epochs=2, batch_size=10)
    train(model, stage, inputs, labels, seed=3)

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
    inputs, labels = problem(20)
    model, twin = network(4), network(4)
    stage = replace(CONTRASTIVE, epochs=1, weight_decay=0.0, momentum=0.0)
    train(model, stage, inputs, labels, seed=1)

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
    inputs, labels = problem(12)
    labels = (labels - labels.mean()) / labels.std()
    stage = replace(REGRESSION, loss=loss, epochs=400, batch_size=12, weight_decay=0.0)
    history = train(network(), stage, inputs, labels, seed=0)
    assert history.train_loss[-1] < 0.05 < history.train_loss[0]


def test_contrastive_training_orders_features_by_label():
    from rnclib.metrics import rank_agreement

    inputs, labels = problem(64)
    stage = replace(CONTRASTIVE, epochs=150, batch_size=32)
    model = network(4)
    before = rank_agreement(model(inputs).detach().numpy(), labels.numpy())
    train(model, stage, inputs, labels, seed=0)
    assert rank_agreement(model(inputs).detach().numpy(), labels.numpy()) > max(0.9, before)


def test_the_epoch_of_least_validation_loss_is_kept():
    inputs, labels = problem(40)
    val_inputs, val_labels = problem(15, seed=9)
    model = network()
    stage = replace(REGRESSION, epochs=25, learning_rate=0.3)  # rough enough to go up and down
    history = train(model, stage, inputs, labels, val_inputs, val_labels, seed=0)
    found = float((predict(model, val_inputs, np.arange(15)).squeeze(1) - val_labels).abs().mean())
    assert found == pytest.approx(min(history.val_loss), abs=1e-6)
    assert history.best_epoch == int(np.argmin(history.val_loss)) + 1 != 25


def test_a_validation_loss_that_is_no_number_is_never_the_least():
    inputs, labels = problem(16)

    class Unsure(nn.Module):
        """Gives NaN in evaluation mode until it has been evaluated twice."""

        def __init__(self) -> None:
            super().__init__()
            self.linear, self.evaluations = nn.Linear(5, 1), 0

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            self.evaluations += not self.training
            nan = not self.training and self.evaluations < 3
            return self.linear(batch) * (math.nan if nan else 1.0)

    history = train(Unsure(), REGRESSION, inputs, labels, inputs, labels, seed=0)
    assert [math.isnan(value) for value in history.val_loss] == [True, True, False, False, False, False]
    assert history.best_epoch == 3 + int(np.argmin(history.val_loss[2:]))


def test_eval_batch_norm_keeps_its_statistics_and_still_trains():
    inputs, labels = problem()
    model = network(norm=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train(model, replace(REGRESSION, batch_norm="eval"), inputs, labels, seed=0)
    after = model.state_dict()
    assert torch.equal(after["1.running_mean"], before["1.running_mean"])
    assert not torch.equal(after["0.weight"], before["0.weight"])
    train(model, REGRESSION, inputs, labels, seed=0)
    assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])


def test_divergence_is_an_error_that_says_when():
    inputs, labels = problem()
    with pytest.raises(FloatingPointError, match=r"training loss \(l2\) became (nan|inf) in epoch \d"):
        train(network(), replace(REGRESSION, loss="l2", learning_rate=1e6, epochs=9), inputs, labels, seed=0)


def test_no_run_may_take_no_step():
    inputs, labels = problem(5)
    with pytest.raises(ValueError, match=r"batch_size: got 8 with drop_last and 5 samples.*allowed: at most 5"):
        train(network(4), CONTRASTIVE, inputs, labels, seed=0)


def test_random_numbers_are_keyed_and_leave_the_global_state_alone():
    inputs, labels = problem()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second, other = network(), network(), network()
    train(first, REGRESSION, inputs, labels, seed=5)
    torch.manual_seed(77)
    np.random.seed(77)  # noqa: NPY002
    train(second, REGRESSION, inputs, labels, seed=5)
    train(other, REGRESSION, inputs, labels, seed=6)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    torch.manual_seed(0)
    train(network(), REGRESSION, inputs, labels, seed=5)
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
    inputs, labels = problem()
    seen = []

    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 1)

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            seen.append(batch.detach().mean().item())
            return self.linear(batch)

    train(Recorder(), replace(REGRESSION, batch_size=27, epochs=3), Counted(inputs), labels, seed=0)
    assert seen == pytest.approx([inputs.mean().item() + epoch for epoch in (1, 2, 3)], abs=1e-5)


def test_images_are_trained_on_two_views_and_resume_as_if_undisturbed(tmp_path):
    pixels = torch.randint(0, 256, (24, 18, 18, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = Views(Images(pixels, 16), np.arange(20), seed=5, n_views=2)
    labels = torch.arange(20.0)

    def run(**options) -> tuple[torch.Tensor, list[float]]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = ImageEncoder("small")
        history = train(encoder, replace(CONTRASTIVE, epochs=3), views, labels, seed=1, **options)
        return weights(encoder), history.train_loss

    expected, losses = run()

    def kill(epochs: int) -> None:
        nonlocal left
        left -= epochs
        if not left:
            raise Killed

    left = 2
    checkpoint = {"checkpoint": tmp_path / "run.pt", "checkpoint_seconds": 0}
    with pytest.raises(Killed):
        run(on_epoch=kill, **checkpoint)
    resumed, again = run(**checkpoint)
    assert torch.equal(resumed, expected) and again == losses and len(losses) == 3


# --- resumption -----------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("epoch", range(1, 7))
@pytest.mark.parametrize("stage", [REGRESSION, CONTRASTIVE], ids=["l1", "rnc"])
def test_a_run_killed_after_any_epoch_ends_with_the_same_numbers(tmp_path, stage, epoch):
    inputs, labels = problem(40)
    validation = problem(15, seed=9) if stage.loss == "l1" else (None, None)
    out = 1 if stage.loss == "l1" else 4
    undisturbed = network(out, norm=True)
    expected = train(undisturbed, stage, inputs, labels, *validation, seed=2)

    done = 0

    def kill(epochs: int) -> None:
        nonlocal done
        done += epochs
        if done == epoch:
            raise Killed

    checkpoint = tmp_path / "run.pt"
    with pytest.raises(Killed):
        train(
            network(out, norm=True), stage, inputs, labels, *validation,
            seed=2, checkpoint=checkpoint, checkpoint_seconds=0, on_epoch=kill,
        )  # fmt: skip
    resumed, counted = network(out, norm=True, seed=99), []
    history = train(resumed, stage, inputs, labels, *validation, seed=2, checkpoint=checkpoint, on_epoch=counted.append)
    if epoch > 1:  # else nothing had been saved, and the other initial weights count
        assert torch.equal(weights(resumed), weights(undisturbed))
        assert (history.train_loss, history.val_loss) == (expected.train_loss, expected.val_loss)
        assert history.best_epoch == expected.best_epoch
    assert sum(counted) == stage.epochs


def test_a_killed_process_resumes(tmp_path):
    script = textwrap.dedent(
        """
        import sys, time, torch
        sys.path.insert(0, {tests!r})
        from test_training import REGRESSION, network, problem, weights
        from rnclib.training import train
        from dataclasses import replace
        torch.set_num_threads(1)
        slow = (lambda _: time.sleep(0.05)) if sys.argv[2] == "slow" else None
        model = network()
        train(model, replace(REGRESSION, epochs=30), *problem(), seed=4,
              checkpoint=sys.argv[1], checkpoint_seconds=0, on_epoch=slow)
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
    resumed, undisturbed = start(tmp_path / "run.pt", "fast"), start(tmp_path / "other.pt", "fast")
    assert resumed.communicate()[0] == undisturbed.communicate()[0] != ""
    epochs = len(torch.load(tmp_path / "run.pt", weights_only=True)["history"]["train_loss"])
    assert epochs == 29 or epochs == 30


def test_a_checkpoint_holds_no_code_and_belongs_to_its_run(tmp_path):
    inputs, labels = problem()
    checkpoint = tmp_path / "run.pt"
    train(network(), REGRESSION, inputs, labels, seed=0, checkpoint=checkpoint, checkpoint_seconds=0)
    assert set(torch.load(checkpoint, weights_only=True)) == {"identity", "model", "optimizer", "history", "best"}
    with pytest.raises(ValueError, match=r"checkpoint: .*run\.pt belongs to another run"):
        train(network(), REGRESSION, inputs, labels, seed=1, checkpoint=checkpoint)


def test_a_truncated_checkpoint_is_reported_and_training_starts_again(tmp_path):
    inputs, labels = problem()
    checkpoint = tmp_path / "run.pt"
    expected = network()
    train(expected, REGRESSION, inputs, labels, seed=0, checkpoint=checkpoint, checkpoint_seconds=0)
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    model = network()
    with pytest.warns(UserWarning, match=r"run\.pt cannot be read"):
        train(model, REGRESSION, inputs, labels, seed=0, checkpoint=checkpoint)
    assert torch.equal(weights(model), weights(expected))


# --- the other methods ----------------------------------------------------------------------------------


def test_supcon_bins_the_labels_of_the_whole_training_part():
    inputs, labels = problem()
    stage = replace(CONTRASTIVE, loss="supcon", label_diff=None, feature_sim=None, n_bins=3, epochs=1, weight_decay=0.0)
    edges = bin_edges(labels, 3)
    still = train(network(4), replace(stage, learning_rate=0.0), inputs, labels, seed=1)
    literal = [
        binned_supcon_loss(network(4)(inputs[part]), labels[part], edges, 2.0).item()
        for part in np.split(np.random.default_rng([1, 1]).permutation(27)[:24], 3)
    ]
    assert still.train_loss[0] == pytest.approx(np.mean(literal), rel=1e-5)


@pytest.mark.parametrize(("name", "term"), REGULARISERS.items())
def test_a_regulariser_is_added_with_its_weight(name, term):
    inputs, labels = problem()
    stage = replace(REGRESSION, epochs=1, batch_size=27, learning_rate=0.0)
    plain = train(network(), stage, inputs, labels, seed=0, val_inputs=inputs, val_labels=labels)
    model = network()
    with_term = replace(stage, regulariser=name, regulariser_weight=0.5)
    history = train(model, with_term, inputs, labels, seed=0, val_inputs=inputs, val_labels=labels)
    order = np.random.default_rng([0, 1]).permutation(27)
    expected = plain.train_loss[0] + 0.5 * term(model[:-1](inputs[order]), labels[order]).item()
    assert history.train_loss[0] == pytest.approx(expected, rel=1e-5)
    assert history.val_loss == plain.val_loss  # selection by the regression loss alone
    assert not model[-1]._forward_pre_hooks
    trained = train(network(), replace(with_term, learning_rate=0.05, epochs=3), inputs, labels, seed=0)
    without = train(network(), replace(stage, learning_rate=0.05, epochs=3), inputs, labels, seed=0)
    assert trained.train_loss[-1] != without.train_loss[-1]


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (REGRESSION, {"regulariser": "ranksim"}, "regulariser_weight: got None"),
        (REGRESSION, {"regulariser": "rank", "regulariser_weight": 1.0}, "regulariser: got 'rank'; allowed: 'ordinal"),
        (CONTRASTIVE, {"regulariser": "ranksim", "regulariser_weight": 1.0}, "regulariser: got 'ranksim'"),
        (CONTRASTIVE, {"n_bins": 3}, "n_bins: got 3; allowed: a value with loss='supcon', None with the others"),
        (CONTRASTIVE, {"loss": "supcon"}, "label_diff: got 'l1'"),
    ],
)
def test_options_of_the_other_methods_are_checked(stage, options, message):
    with pytest.raises(ValueError, match=message):
        replace(stage, **options)


# --- several processes ----------------------------------------------------------------------------------


def photographs(loss: str) -> tuple[nn.Module, Stage, Views, torch.Tensor]:
    """A network on random views of 27 random images, its batch norm as it was initialised."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 18, 18, 3), dtype=torch.uint8, generator=generator)
    stage = replace(CONTRASTIVE if loss == "rnc" else REGRESSION, batch_norm="eval", epochs=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ImageEncoder("small")
        model = encoder if loss == "rnc" else nn.Sequential(encoder, nn.Linear(encoder.out_features, 1))
    views = Views(Images(pixels, 16), np.arange(27), seed=2, n_views=2 if loss == "rnc" else 1)
    return model, stage, views, torch.linspace(-1, 1, 27)


def task(kind: str) -> tuple[nn.Module, Stage, Any, torch.Tensor]:
    loss, _, of = kind.partition(" of ")
    if of:
        return photographs(loss)
    return (network(4), CONTRASTIVE, *problem()) if loss == "rnc" else (network(), REGRESSION, *problem())


@pytest.mark.parametrize("kind", ["l1", "rnc", "l1 of images", "rnc of images"])
def test_two_processes_reach_the_weights_of_one(tmp_path, kind):
    """Without batch norm or with it frozen, since its statistics would be each process's own; to rounding."""
    script = textwrap.dedent(
        """
        import sys, torch
        sys.path.insert(0, {tests!r})
        from test_training import task, weights
        from lightning_fabric import Fabric
        from rnclib.training import train

        def work(fabric):
            torch.set_num_threads(1)
            model, stage, inputs, labels = task(sys.argv[2])
            history = train(model, stage, inputs, labels, seed=2, fabric=fabric)
            if fabric.is_global_zero:
                torch.save({{"weights": weights(model), "loss": history.train_loss}}, sys.argv[1])

        if __name__ == "__main__":
            Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(work)
        """
    ).format(tests=os.path.dirname(__file__))
    program, result = tmp_path / "two.py", tmp_path / "two.pt"
    program.write_text(script)
    subprocess.run([sys.executable, "-W", "ignore", str(program), str(result), kind], check=True, timeout=240)
    two = torch.load(result, weights_only=True)

    model, stage, inputs, labels = task(kind)  # 27 samples: the last batch of l1 is uneven
    one = train(model, stage, inputs, labels, seed=2)
    torch.testing.assert_close(two["weights"], weights(model), rtol=0, atol=2e-6)
    torch.testing.assert_close(torch.tensor(two["loss"]), torch.tensor(one.train_loss), rtol=1e-5, atol=1e-6)


def test_processes_resume_together_and_end_with_the_same_weights(tmp_path):
    """Each process has a folder of its own, and only the first finds the checkpoint; batch norm is each one's own."""
    script = textwrap.dedent(
        """
        import sys, torch
        sys.path.insert(0, {tests!r})
        from test_training import REGRESSION, network, problem, weights
        from dataclasses import replace
        from lightning_fabric import Fabric
        from rnclib.training import train

        def work(fabric, folder):
            torch.set_num_threads(1)
            path, last = folder + f"/{{fabric.global_rank}}.pt", [4]
            def stop(epochs):
                last[0] -= epochs
                if last[0] == 0:
                    raise KeyboardInterrupt
            inputs, labels = problem()
            stage = replace(REGRESSION, drop_last=True)
            run = lambda **options: train(
                network(norm=True), stage, inputs, labels, inputs, labels, seed=2, fabric=fabric, **options
            )
            try:
                run(checkpoint=path, checkpoint_seconds=0, on_epoch=stop)
            except KeyboardInterrupt:
                pass
            fabric.barrier()
            model, other = network(norm=True), network(norm=True)
            histories = [
                train(one, stage, inputs, labels, inputs, labels, seed=2, fabric=fabric, checkpoint=where)
                for one, where in ((model, path), (other, None))
            ]
            result = {{"resumed": weights(model), "whole": weights(other), "loss": [h.train_loss for h in histories]}}
            torch.save(result, folder + f"/result{{fabric.global_rank}}.pt")

        if __name__ == "__main__":
            Fabric(accelerator="cpu", devices=2, strategy="ddp_spawn").launch(work, sys.argv[1])
        """
    ).format(tests=os.path.dirname(__file__))
    program = tmp_path / "two.py"
    program.write_text(script)
    subprocess.run([sys.executable, "-W", "ignore", str(program), str(tmp_path)], check=True, timeout=240)
    assert (tmp_path / "0.pt").exists() and not (tmp_path / "1.pt").exists()
    first, second = (torch.load(tmp_path / f"result{rank}.pt", weights_only=True) for rank in (0, 1))
    assert torch.equal(first["resumed"], second["resumed"]) and torch.equal(first["whole"], second["whole"])
    torch.testing.assert_close(first["resumed"], first["whole"], rtol=0, atol=1e-6)
    assert first["loss"][0] == pytest.approx(first["loss"][1], rel=1e-6)


@pytest.mark.parametrize("loss", ["l1", "rnc"])
def test_training_in_bfloat16_follows_that_in_float32(loss):
    model, stage, inputs, labels = photographs(loss)
    before = weights(model)
    exact = train(model, stage, inputs, labels, seed=2)
    rounded_model = photographs(loss)[0]
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    rounded = train(rounded_model, stage, inputs, labels, seed=2, fabric=fabric)
    assert all(value.dtype == torch.float32 for value in rounded_model.parameters())
    # bfloat16 has eight bits: losses to a percent, and steps of training that go the same way
    torch.testing.assert_close(torch.tensor(rounded.train_loss), torch.tensor(exact.train_loss), rtol=0.01, atol=0)
    steps = weights(model) - before, weights(rounded_model) - before
    assert torch.cosine_similarity(*steps, dim=0) > 0.95
    assert rounded.train_loss != exact.train_loss


def test_predict_is_in_order_and_leaves_the_mode_alone():
    inputs, _ = problem()
    model = network(norm=True)
    index = np.array([4, 4, 0, 26])
    output = predict(model, inputs, index, batch_size=3)
    assert model.training
    torch.testing.assert_close(output, model.eval()(inputs)[index])
