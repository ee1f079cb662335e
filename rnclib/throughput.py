"""Images per second of contrastive training: this package's pipeline beside a plain one.

``python -m rnclib.throughput`` measures on this machine, prints the ratio table and leaves one JSON record. The
pipelines take turns within one process, so that whatever else the machine does hits all of them.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rnclib import benchmark, results
from rnclib.data import cache_dir
from rnclib.data.augment import AREA, ASPECT, BRIGHTNESS, CONTRAST, FLIP, GREYSCALE, HUE, JITTER, SATURATION, Views
from rnclib.data.images import Images, decode
from rnclib.data.synthetic import make_faces
from rnclib.encoders import ImageEncoder
from rnclib.protocols import FACES_PRESETS
from rnclib.recipe import Stage
from rnclib.training import Samples, predict, train

__all__ = ["OURS", "PIPELINES", "Pipeline", "measure", "projected_hours", "rates"]


@dataclass(frozen=True)
class Pipeline:
    """A way from images to gradients: this package's, or a plain one with a loss; with its options."""

    about: str
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    bf16: bool = False
    compiled: bool = False


#: How images become gradients, from the plain way to this package's and its options.
PIPELINES = {
    "plain": Pipeline(
        "PIL and torchvision transforms in DataLoader workers, float32, the loss as a loop", benchmark.official
    ),
    "plain, rnc_loss": Pipeline("the same with the loss of this package", benchmark.rnc),
    "rnclib": Pipeline("decoded once, views made in batches on the device, channels last, the loss of this package"),
    "rnclib, bf16": Pipeline("the same with autocast to bfloat16", bf16=True),
    "rnclib, compiled": Pipeline("the same in float32 with the encoder compiled", compiled=True),
    "rnclib, bf16, compiled": Pipeline("both", bf16=True, compiled=True),
}
#: Those that the protocols can use, which compile nothing.
OURS = [name for name, pipeline in PIPELINES.items() if pipeline.loss is None and not pipeline.compiled]

# The paper run on AgeDB: images of its training set.
TRAINING_SET = 12_208

#: What each profile measures: settings (model, side in pixels, batch, images of one turn) and turns.
PROFILES: dict[str, dict[str, dict[str, Any]]] = {
    "cpu": {
        "paper": {"settings": (("small", 64, 256, 1024), ("resnet18", 224, 32, 64)), "turns": 3},
        "quick": {"settings": (("small", 64, 256, 512),), "turns": 2},
        "smoke": {"settings": (("small", 16, 32, 64),), "turns": 1},
    },
    "cuda": {
        "paper": {"settings": (("resnet18", 224, 256, 4096), ("resnet50", 224, 256, 2048)), "turns": 5},
        "quick": {"settings": (("resnet18", 224, 256, 2048),), "turns": 2},
        "smoke": {"settings": (("small", 16, 32, 64),), "turns": 1},
    },
}


def measure(
    profile: str = "quick",
    *,
    device: str = "cpu",
    compiled: bool = False,
    report: Callable[[str], None] = benchmark.say,
) -> dict[str, Any]:
    """Measure on this machine and return the record.

    Parameters
    ----------
    profile : {'smoke', 'quick', 'paper'}
        How much is measured: seconds, less than a minute, several minutes.
    device : {'cpu', 'cuda'}
    compiled : bool
        Measure compiled encoders too, which takes minutes more.
    report : callable
        Told what is being measured; by default it says so on the error stream.

    Returns
    -------
    dict
        ``rates`` has, for each setting and pipeline, the images (not views) per second of every turn.
    """
    for name, value, allowed in (("profile", profile, PROFILES["cpu"]), ("device", device, PROFILES)):
        if value not in allowed:
            raise ValueError(f"{name}: got {value!r}; allowed: " + ", ".join(map(repr, allowed)))
    plan, threads = PROFILES[device][profile], torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    commit, clean = results.commit()
    machine = benchmark.machine() | {"threads": torch.get_num_threads()}
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    record: dict[str, Any] = {"experiment": "throughput", "profile": profile, "commit": commit, "clean": clean}
    record |= {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "device": device, "machine": machine}
    record["rates"] = []
    try:
        for model, size, batch, n in plan["settings"]:
            setting = {"model": model, "size": size, "batch": batch}
            for name, values in _take_turns(setting, n, plan["turns"], device, compiled, report).items():
                record["rates"].append(setting | {"pipeline": name, "images_per_second": values})
    finally:
        torch.set_num_threads(threads)
    return record


def _take_turns(
    setting: dict[str, Any], n: int, turns: int, device: str, compiled: bool, report: Callable[[str], None]
) -> dict[str, list[float]]:
    """Images per second of each pipeline, once a turn; a turn before the first does not count."""
    size, batch = setting["size"], setting["batch"]
    paths, ages = _faces(n, size)
    images, _ = decode(paths, size, progress=False)
    fabrics = {
        False: Fabric(accelerator=device, devices=1, precision="32-true"),
        True: Fabric(accelerator=device, devices=1, precision="bf16-mixed"),
    }
    there = fabrics[False].device
    labels, resident = torch.tensor(ages, dtype=torch.float32, device=there), images.to(there)
    torch.manual_seed(0)
    encoder = ImageEncoder(setting["model"]).to(there)
    stage = replace(FACES_PRESETS["paper"]["encoder"]["rnc"], epochs=1, batch_size=batch, learning_rate=1e-3)
    epochs: dict[str, Callable[[], Any]] = {}
    for name, pipeline in PIPELINES.items():
        model = copy.deepcopy(encoder)
        if pipeline.loss is not None:
            loader = torch.utils.data.DataLoader(
                _Files(paths, ages, size), batch_size=batch, shuffle=True, num_workers=os.cpu_count() or 1,
                persistent_workers=True,
            )  # fmt: skip
            trunk = model.trunk.to(memory_format=torch.contiguous_format)
            epochs[name] = _plain_epoch(trunk, loader, pipeline.loss, there)
        elif compiled or not pipeline.compiled:
            if pipeline.compiled:
                model.compile()
            epochs[name] = _epoch(model, stage, resident, labels, fabrics[pipeline.bf16])
    epochs["frozen features"] = _features(encoder, resident, n)
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(turns + 1):
        for name, epoch in epochs.items():
            report(f"{setting['model']} at {size} pixels, turn {turn}: {name}")
            begin = time.perf_counter()
            epoch()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn:
                times[name].append(n / (time.perf_counter() - begin))
    return times


def _faces(n: int, size: int) -> tuple[list[Path], np.ndarray]:
    """Synthetic faces as files; the plain pipeline reads them each time."""
    stored = round(size * 8 / 7)
    root = cache_dir() / "faces" / f"throughput-{n}-{stored}"
    if not (root / "agedb.csv").is_file():
        make_faces(root, max(n, 100), stored)
    table = pd.read_csv(root / "agedb.csv").head(n)
    return [root / path for path in table["path"]], table["age"].to_numpy()


class _Files(torch.utils.data.Dataset):
    """Two random views of each file, as torchvision's transforms make them."""

    def __init__(self, paths: Sequence[Path], ages: np.ndarray, size: int) -> None:
        from torchvision import transforms

        self.paths, self.ages = list(paths), ages
        jitter = transforms.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE)
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=AREA, ratio=ASPECT),
                transforms.RandomHorizontalFlip(FLIP),
                transforms.RandomApply([jitter], JITTER),
                transforms.RandomGrayscale(GREYSCALE),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, float]:
        from PIL import Image

        with Image.open(self.paths[i]) as file:
            image = file.convert("RGB")
        return torch.stack([self.view(image), self.view(image)]), float(self.ages[i])


def _plain_epoch(
    trunk: nn.Module,
    loader: torch.utils.data.DataLoader,
    loss: Callable[[Tensor, Tensor], Tensor],
    device: torch.device,
) -> Callable[[], None]:
    optimizer = torch.optim.SGD(trunk.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def epoch() -> None:
        trunk.train()
        for views, ages in loader:
            features = trunk(views.to(device).transpose(0, 1).flatten(0, 1))  # view by view
            optimizer.zero_grad()
            loss(features, ages.float().to(device).repeat(2)).backward()
            optimizer.step()

    return epoch


def _epoch(encoder: nn.Module, stage: Stage, images: Images, labels: Tensor, fabric: Fabric) -> Callable[[], Any]:
    views = Views(images, np.arange(len(labels)), seed=0, n_views=stage.n_views or 1)
    return lambda: train(encoder, stage, Samples(views, labels), seed=0, fabric=fabric)


def _features(encoder: nn.Module, images: Images, n: int) -> Callable[[], Any]:
    views = Views(images, np.arange(n), seed=0)
    return lambda: predict(encoder, views)


def rates(record: dict[str, Any]) -> pd.DataFrame:
    """Median images per second of each setting and pipeline, and as a multiple of the plain pipeline's.

    Parameters
    ----------
    record : dict
        From `measure`, or from `rnclib.benchmark.load` with ``experiment='throughput'``.
    """
    table = pd.DataFrame(
        [row | {"images_per_second": float(np.median(row["images_per_second"]))} for row in record["rates"]]
    )
    setting = ["model", "size", "batch"]
    plain = table[table["pipeline"] == "plain"].set_index(setting)["images_per_second"]
    table["times"] = table["images_per_second"] / plain.reindex(pd.MultiIndex.from_frame(table[setting])).to_numpy()
    return table


def projected_hours(record: dict[str, Any]) -> pd.Series:
    """Hours that the paper's run on AgeDB would take on this machine, by model, for those measured at its 224 pixels.

    400 contrastive epochs over 12 208 images, by the fastest pipeline that the protocols can use, which compile
    nothing, then 100 of a linear regressor on frozen features of new views.

    Parameters
    ----------
    record : dict
        As for `rates`.
    """
    table = rates(record).query("size == 224")
    ours = table[table["pipeline"].isin(OURS)].groupby("model")["images_per_second"].max()
    frozen = table[table["pipeline"] == "frozen features"].set_index("model")["images_per_second"]
    preset = FACES_PRESETS["paper"]
    encoder, regressor = preset["encoder"]["rnc"].epochs, preset["regressor"]["l1"].epochs
    return TRAINING_SET * (encoder / ours + regressor / frozen) / 3600


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m rnclib.throughput", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", choices=PROFILES["cpu"], default="quick", help="how much is measured")
    parser.add_argument("--device", choices=PROFILES, default="cpu")
    parser.add_argument("--compiled", action="store_true", help="compiled encoders too")
    parser.add_argument("--results-dir", help="folder of the records (default: book/results)")
    arguments = parser.parse_args(argv)
    record = measure(arguments.profile, device=arguments.device, compiled=arguments.compiled)
    path = benchmark.save(record, arguments.results_dir)
    print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    print("\nImages per second, and as a multiple of the plain pipeline\n")
    print(rates(record).to_string(index=False, float_format="{:.2f}".format))
    if len(hours := projected_hours(record)):
        print("\nHours that the paper's run on AgeDB would take\n")
        print(hours.to_string(float_format="{:.2f}".format))
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
