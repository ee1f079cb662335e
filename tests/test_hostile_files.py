"""Files that came to harm, or mean harm: records, checkpoints and saved models. Each counts whole, or is named.

The large numbers of cases are in the tests marked as slow; the others take a sample of the same.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import time
import warnings
import zipfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from records import record
from safetensors import safe_open
from safetensors.torch import save_file

from rnclib import RnCRegressor, results, training
from rnclib.networks import Execution, Network
from rnclib.recipe import Recipe, Stage
from rnclib.records import SHARED
from rnclib.training import Samples, read_state, train

SECONDS = 10  # for one case, on a machine that does other things too
NAMES = ["../../x", "/etc/x", "a/b", "..", "", "*", "x" * 300, "a\0b", "a\nb", "<b>x</b>", "\ud800", "~", "C:\\x"]
ODD: list[Any] = [
    *NAMES, None, True, False, -1, 0, 1.5, 10**400, -(10**30), 2**63, float("nan"), float("inf"), 1e308, [], {}, [[]],
    [None], [1, "x"], {"a": {}}, "1", [1] * 1000, {"raw": {"mae": "x"}}, [10**400], {"../x": 1},
]  # fmt: skip


class Payload:
    """What runs a program when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch '{self.sentinel}'",)


def harmed(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes flipped, cut off, left out, doubled, or put in."""
    at, to = sorted(int(i) for i in rng.integers(0, len(content) + 1, 2))
    kind = rng.integers(0, 6)
    if kind < 2:
        at = min(at, len(content) - 1)
        return content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    if kind == 2:
        return content[:at]
    if kind == 3:
        return content[:at] + content[to:]
    if kind == 4:
        return content[:to] + content[at:]
    return content[:at] + rng.bytes(int(rng.integers(1, 9))) + content[at:]


def meddled(rng: np.random.Generator, whole: Any, odd: list[Any]) -> Any:
    """A copy with something else in one or two places, in any depth, or without them."""
    whole = copy.deepcopy(whole)
    for _ in range(rng.integers(1, 3)):
        node = whole
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not len(keys):
                break
            name = keys[int(rng.integers(len(keys)))]
            if isinstance(node[name], dict | list) and len(node[name]) and rng.random() < 0.7:
                node = node[name]
                continue
            if rng.random() < 0.2:
                del node[name]
            else:
                node[name] = copy.deepcopy(odd[int(rng.integers(len(odd)))])
            break
    return whole


def listing(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


# --- records --------------------------------------------------------------------------------------------

FULL = record(
    corrupted={"noise": [0.3, None]}, new_people={"data_seed": 1, "mae": 0.5},
    config={"spurious": "tied"}, run={"cpu": "a processor", "versions": {"torch": "2.9"}, "commit": "0" * 40},
)  # fmt: skip
FULL["data"]["seen"], FULL["test"]["nuisance"] = [[-3.0, -1.0]], [1.0, 2.0] * 4
FRAMES = (results.frame, results.predictions, results.corrupted, results.seen_and_unseen, results.on_new_people,
          results.correlation_effects, results.curves, results.machines)  # fmt: skip


def check_record(root: Path, content: bytes, *, used: bool) -> bool:
    """What a file holds is a record with which all can be done that is done with records, or its name is told."""
    path = root / "store" / "smoke" / "esol" / "esol-my.json"
    path.write_bytes(content)
    begun = time.monotonic()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = results.load(root / "store", profile="smoke", experiment="esol")
    assert len(found) + len(caught) == 1 and all(path.name in str(one.message) for one in caught), content
    if found and used:
        for made in FRAMES:
            made(found)
        for method in {found[0]["method"]}:
            results.view(found, method, root / "store")
        results.all_predictions(found[0], root / "store")
        try:
            written = results.write(found[0], root / "copy")
        except ValueError as error:  # a number that is too large, where nobody uses it
            assert "NaN or infinite" in str(error), content
        else:
            assert written.parent == root / "copy" / "smoke" / "esol", content
            shutil.rmtree(written.parent)
    assert time.monotonic() - begun < SECONDS, content
    assert {file for file in listing(root) if file.parent.name not in SHARED} == {path}, content
    return bool(found)


def fuzz_records(root: Path, n: int, seed: int, every: int) -> Counter:
    rng, counts = np.random.default_rng(seed), Counter[bool]()
    path = results.write(FULL, root / "store")
    forms = FULL, json.loads(path.read_bytes())  # with all that is its own, and as it is written
    path.unlink()
    for i in range(n):
        form = forms[i % 2]
        content = harmed(rng, json.dumps(form).encode()) if i % 3 == 0 else json.dumps(meddled(rng, form, ODD)).encode()
        counts[check_record(root, content, used=i % every == 0)] += 1
    return counts


def test_a_record_is_whole_or_left_out_by_name(tmp_path):
    counts = fuzz_records(tmp_path, 1000, 0, every=2)
    assert min(counts[True], counts[False]) > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_each_of_thirty_thousand_records_is_whole_or_left_out_by_name(seed, tmp_path):
    counts = fuzz_records(tmp_path, 30_000, seed, every=15)
    assert min(counts[True], counts[False]) > 2000


@pytest.mark.parametrize("name", ["experiment", "dataset", "split", "key"])
@pytest.mark.parametrize("value", NAMES)
def test_no_name_of_a_record_leads_out_of_its_folder(name, value, tmp_path):
    root = tmp_path / "store"
    with pytest.raises(ValueError, match=rf"^{name}: got .*; allowed: up to 80 letters"):
        results.write(record() | {name: value or "/"}, root)
    assert not listing(tmp_path)
    if name in ("experiment", "dataset"):
        where = {"profile": "smoke", "experiment": "esol", "dataset": "esol", name: value}
        for asked in (results.exists, results.load, results.pack):
            with pytest.raises(ValueError, match=rf"^{name}: got "):
                asked(root, **where)


def test_what_is_no_file_of_a_record_or_too_large_is_not_read(tmp_path, monkeypatch):
    folder = tmp_path / "smoke" / "esol"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "pipe.json")  # whoever opens it waits for ever
    (folder / "folder.json").mkdir()
    (folder / "deep.json").write_text("[" * 200_000)
    (folder / "large.json").write_text(json.dumps(FULL))
    monkeypatch.setattr(results.record_files, "LARGEST", 1000)
    with pytest.warns(UserWarning, match=r"left out.*deep\.json, folder\.json, large\.json, pipe\.json"):
        assert results.load(tmp_path, profile="smoke", experiment="esol") == []


def test_predictions_beside_records_are_tables_or_the_file_is_named(tmp_path, monkeypatch):
    one = record(seed=0)
    path = results.write(one, tmp_path)
    path.with_suffix(".csv").write_text("index,target,prediction\n0,1,2\n")
    results.pack(tmp_path, profile="smoke", experiment="esol", dataset="esol")
    packed = path.with_name("esol.zip")
    intact, rng = results.all_predictions(one, tmp_path), np.random.default_rng(0)
    assert intact.to_numpy().tolist() == [[0, 1, 2]]
    whole = packed.read_bytes()
    for _ in range(150):
        packed.write_bytes(harmed(rng, whole))
        try:
            found = results.all_predictions(one, tmp_path)
        except ValueError as error:
            assert str(error).startswith(f"file: got {packed}")
        else:
            assert found is None or found.equals(intact)
    for text in ("", "a,b\n1,2\n", "index,target,prediction\n0,x,1\n", 'index\n"'):
        with zipfile.ZipFile(packed, "w") as made:
            made.writestr(f"{one['key']}.csv", text)
        with pytest.raises(ValueError, match=r"^file: got .*esol\.zip"):
            results.all_predictions(one, tmp_path)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:  # a bomb
        made.writestr(f"{one['key']}.csv", b"0" * 10**6)
    monkeypatch.setattr(results.record_files, "LARGEST", 10**4)
    with pytest.raises(ValueError, match=r"^file: got .*esol\.zip, which cannot be unpacked \(it is too large"):
        results.all_predictions(one, tmp_path)


# --- checkpoints ----------------------------------------------------------------------------------------

STAGE = Stage("l1", epochs=3, batch_size=16, learning_rate=0.01, lr_decay_rate=0.1, weight_decay=0.0)
X = torch.linspace(-1, 1, 96).reshape(32, 3)
TRAIN, VAL = Samples(X, X[:, 0]), Samples(X[:8], X[:8, 0])


FABRIC = Fabric(accelerator="cpu", devices=1)


def new_loop() -> training._Loop:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1), torch.nn.Flatten(0))
    return training._Loop(model, STAGE, TRAIN, VAL, 1, FABRIC)


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def resumed(path: Path) -> tuple[Any, bool]:
    """What a loop that begins with a checkpoint knows, and whether it warned of the file."""
    loop = new_loop()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.resume(path)
    assert all(str(path) in str(one.message) for one in caught)
    return plain([loop.model.state_dict(), loop.optimizer.state_dict(), asdict(loop.history), loop.best]), bool(caught)


@pytest.fixture
def checkpoint(tmp_path):
    loop = new_loop()
    loop.run_epoch(1)
    loop.save(tmp_path / "run.pt")
    return tmp_path / "run.pt"


ODD_PARTS = [
    *ODD, torch.zeros(0), torch.zeros(3, 3), torch.zeros(1).expand(2**40), torch.zeros(1).double().expand(2**36),
    torch.tensor([float("nan")]),
]  # fmt: skip


def fuzz_checkpoints(path: Path, n: int, seed: int) -> Counter:
    """Training goes on from the checkpoint as it was; or begins again, with a warning; or the file is named."""
    rng, counts, whole = np.random.default_rng(seed), Counter[str](), path.read_bytes()
    state = torch.load(path, weights_only=True)
    intact, fresh = resumed(path)[0], resumed(path.with_name("none"))[0]
    for i in range(n):
        path.write_bytes(harmed(rng, whole))
        foreign = i % 4 == 0
        if foreign:
            torch.save(meddled(rng, state, ODD_PARTS), path)
        begun = time.monotonic()
        try:
            found, warned = resumed(path)
        except ValueError as error:
            assert str(error).startswith(f"checkpoint: got {path}") and "\n" not in str(error)
            counts["refused"] += 1
        else:
            # of one that is whole but for its numbers, nobody can tell
            assert found == (fresh if warned else intact) or (foreign and not warned)
            counts["warned" if warned else "read"] += 1
        assert time.monotonic() - begun < SECONDS
    return counts


def test_a_checkpoint_is_intact_or_counts_for_nothing(checkpoint):
    counts = fuzz_checkpoints(checkpoint, 60, 0)
    assert min(counts["read"], counts["warned"], counts["refused"]) > 1


@pytest.mark.slow
def test_each_of_six_thousand_checkpoints_is_intact_or_counts_for_nothing(checkpoint):
    counts = fuzz_checkpoints(checkpoint, 6_000, 1)
    assert min(counts["read"], counts["warned"], counts["refused"]) > 200


def test_training_ends_the_same_from_whatever_checkpoint_it_takes(checkpoint):
    """A loop that resumes from a foreign state that fits can be trained to its end."""
    rng, state, done = np.random.default_rng(3), torch.load(checkpoint, weights_only=True), 0
    for _ in range(25):
        parts = {name: part for name, part in state.items() if name != "identity"}
        torch.save(meddled(rng, parts, [1.5, 0.0, 7, float("nan")]) | {"identity": state["identity"]}, checkpoint)
        try:
            train(new_loop().module, STAGE, TRAIN, VAL, seed=1, checkpoint=checkpoint)
            done += 1
        except (ValueError, FloatingPointError) as error:
            assert str(checkpoint) in str(error) or "became" in str(error)
    assert done > 1


def test_no_checkpoint_runs_code_or_takes_memory(tmp_path):
    path, sentinel = tmp_path / "run.pt", tmp_path / "sentinel"
    torch.save({"identity": Payload(sentinel)}, path)
    with pytest.warns(UserWarning, match=r"run\.pt"):
        assert read_state(path, "{path} {error}") is None
    path.write_bytes(pickle.dumps(Payload(sentinel)))
    with pytest.warns(UserWarning, match=r"run\.pt"):
        assert read_state(path, "{path} {error}") is None
    assert not sentinel.exists()
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "large.pt")
    with zipfile.ZipFile(tmp_path / "large.pt") as large, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as small:
        for part in large.infolist():
            small.writestr(part.filename, large.read(part))
    assert path.stat().st_size < 10**5
    with pytest.warns(UserWarning, match=r"run\.pt BadZipFile"):
        assert read_state(path, "{path} {error}") is None
    torch.save([1, 2], path)
    with pytest.warns(UserWarning, match=r"run\.pt TypeError"):
        assert read_state(path, "{path} {error}") is None


@pytest.mark.parametrize("freeze", [True, False])
def test_weights_in_the_cache_that_fit_nothing_are_named(freeze, tmp_path):
    fit = None if freeze else STAGE
    first = Stage(**asdict(STAGE) | {"loss": "rnc", "temperature": 2.0, "label_diff": "l1", "feature_sim": "l2"})
    recipe = Recipe("perceptron", pretrain=first if freeze else None, fit=fit, freeze=freeze, widths=(4,))
    data = [Samples(one.inputs.numpy(), one.targets.double().numpy()) for one in (TRAIN, VAL)]

    def fitted():
        return Network(recipe, *data, 0, Execution(cache=tmp_path, data="d"), None).fitted()

    fitted()
    (path,) = (tmp_path / ("encoders" if freeze else "models")).glob("*.pt")
    rng, state, refused = np.random.default_rng(0), torch.load(path, weights_only=True), 0
    for _ in range(8):
        torch.save(meddled(rng, state, ODD_PARTS), path)
        try:
            fitted()
        except ValueError as error:
            assert str(error).startswith(f"weights: got {path}")
            refused += 1
        except FloatingPointError:
            continue  # weights that are NaN
    assert refused > 3


# --- saved models ---------------------------------------------------------------------------------------

ROWS = np.random.default_rng(0).normal(size=(40, 3))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    given = {"epochs": 4, "batch_size": 16, "random_state": 0, "head": "neighbours", "calibration_fraction": 0.2}
    RnCRegressor("joint", **given).fit(ROWS, ROWS[:, 0]).save(path)
    return path


def parts_of(saved: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(saved, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["rnclib"])


def fuzz_models(whole: Path, path: Path, n: int, seed: int) -> Counter:
    """A file is a model that predicts; the very one that was saved, if its numbers came to harm; or it is named."""
    rng, counts, content = np.random.default_rng(seed), Counter[str](), whole.read_bytes()
    intact = RnCRegressor.load(whole).predict(ROWS)
    tensors, header = parts_of(whole)
    told = len(content) - sum(value.nbytes for value in tensors.values())
    for i in range(n):
        foreign = i % 2 == 0
        if foreign:
            save_file(tensors, path, metadata={"rnclib": json.dumps(meddled(rng, header, ODD))})
        elif i % 4 == 1:
            path.write_bytes(content[:told] + harmed(rng, content[told:]))
        else:
            path.write_bytes(harmed(rng, content[:told]) + content[told:])
        begun = time.monotonic()
        try:
            found = RnCRegressor.load(path).predict(ROWS)
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error), path.read_bytes()[:told]
            counts["refused"] += 1
        else:
            assert np.isfinite(found).all() and found.shape in (intact.shape, (len(intact), 1))  # as the targets were
            assert i % 4 != 1 or np.array_equal(found, intact)
            counts["read"] += 1
        assert time.monotonic() - begun < SECONDS
    return counts


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_features_in_": 1e308}, {"n_features_in_": 4}, {"single": []}, {"scaler": [0.0, 1e308]},
        {"scaler": [[1e200], [1.0]]}, {"numbers": {"medians": []}},
    ],
    ids=str,
)  # fmt: skip
def test_a_saved_model_whose_header_says_something_else_is_named(model, tmp_path, wrong):
    tensors, header = parts_of(model)
    assert wrong.keys() <= header.keys()
    save_file(tensors, tmp_path / "m.safetensors", metadata={"rnclib": json.dumps(header | wrong)})
    with pytest.raises(ValueError, match=r"^path: got .*m\.safetensors, whose parts do not fit together"):
        RnCRegressor.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("wrong", [{"mean": [], "scale": []}, {"scale": [0.0, 1.0, 1.0]}], ids=str)
def test_a_saved_model_whose_scaling_says_something_else_is_named(model, tmp_path, wrong):
    tensors, header = parts_of(model)
    header["numbers"] |= wrong
    save_file(tensors, tmp_path / "m.safetensors", metadata={"rnclib": json.dumps(header)})
    with pytest.raises(ValueError, match=r"^path: got .*m\.safetensors, whose parts do not fit together"):
        RnCRegressor.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("large", [lambda y: y * 1e151, lambda y: 1e160 + y * 1e145])
def test_a_model_of_large_targets_predicts_as_before_it_was_saved(large, tmp_path):
    fitted = RnCRegressor("joint", epochs=2, batch_size=16, random_state=0).fit(ROWS, large(ROWS[:, 0]))
    fitted.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(RnCRegressor.load(tmp_path / "m.safetensors").predict(ROWS), fitted.predict(ROWS))


@pytest.mark.parametrize("method", ["rnc", "joint", "end_to_end"])
def test_a_model_of_columns_of_one_value_predicts_as_before_it_was_saved(method, tmp_path):
    rows = np.column_stack([ROWS, np.ones(40), np.full(40, np.nan)])
    fitted = RnCRegressor(method, epochs=2, batch_size=16, random_state=0).fit(rows, ROWS[:, 0])
    fitted.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(RnCRegressor.load(tmp_path / "m.safetensors").predict(rows), fitted.predict(rows))


def test_a_saved_model_predicts_or_is_named(model, tmp_path):
    counts = fuzz_models(model, tmp_path / "m.safetensors", 40, 0)
    assert min(counts.values()) > 1


@pytest.mark.slow
def test_each_of_three_thousand_saved_models_predicts_or_is_named(model, tmp_path):
    counts = fuzz_models(model, tmp_path / "m.safetensors", 3_000, 1)
    assert min(counts.values()) > 150


def test_no_saved_model_runs_code_or_takes_memory(model, tmp_path):
    path, sentinel = tmp_path / "m.safetensors", tmp_path / "sentinel"
    header = json.loads(model.read_bytes()[8 : 8 + int.from_bytes(model.read_bytes()[:8], "little")])
    for content in (pickle.dumps(Payload(sentinel)), b"\x80\x04" + model.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^path: got .*m\.safetensors, which is not to be read"):
            RnCRegressor.load(path)
    torch.save(Payload(sentinel), path)
    with pytest.raises(ValueError, match="which is not to be read"):
        RnCRegressor.load(path)
    assert not sentinel.exists()
    for size in (2**62, 2**40):  # of a header; of a tensor
        path.write_bytes(size.to_bytes(8, "little") + b"{}")
        with pytest.raises(ValueError, match="which is not to be read"):
            RnCRegressor.load(path)
        header["features"] |= {"shape": [size // 8], "data_offsets": [0, size]}
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(ValueError, match="which is not to be read"):
            RnCRegressor.load(path)
