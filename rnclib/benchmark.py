"""Time and memory of the loss beside other ways to write it, and beside the losses its users know.

``python -m rnclib.benchmark`` measures on this machine, prints the ratio tables and leaves one JSON record. Every
time is forward plus backward on one CPU thread in float32. The candidates take turns within one process, so that
whatever else the machine does hits all of them; memory is measured in a fresh process for each figure. The batches
are those of `rnclib.regimes`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rnclib import results
from rnclib.loss import rnc_loss
from rnclib.memory import resident
from rnclib.other_losses import ordinal_entropy, ranksim
from rnclib.regimes import LABELS, REGIMES, TEMPERATURE, make_batch, make_regime, reach, trained_batches

__all__ = [
    "CANDIDATES", "exponents", "load", "machine", "measure", "medians", "official", "ratios", "regimes", "rnc", "save",
    "say", "trained",
]  # fmt: skip


def rnc(v: Tensor, y: Tensor) -> Tensor:
    """The loss of this package."""
    return rnc_loss(v, y, temperature=TEMPERATURE, validate=False)


def plain_path(v: Tensor, y: Tensor) -> Tensor:
    """The same by the plain path of this package, which sorts whole rows and leaves the gradient to autograd."""
    return rnc_loss(v, y, temperature=TEMPERATURE, validate=False, reduction="none").mean()


def official(v: Tensor, y: Tensor) -> Tensor:
    """The official class's algorithm, written anew: each row less its largest similarity, then a sum for each other.

    All differences of embeddings, an M × M × d array, and the masks of all sums stay in memory for backward.
    """
    M, itself = len(v), torch.eye(len(v), dtype=torch.bool, device=v.device)
    s = -(v[:, None] - v).norm(dim=2) / TEMPERATURE
    s = s - s.amax(dim=1, keepdim=True).detach()
    s, d = (x.masked_select(~itself).view(M, M - 1) for x in (s, (y[:, None] - y).abs()))
    exp_s, total = s.exp(), v.new_zeros(())
    for j in range(M - 1):
        competitors = (d >= d[:, j : j + 1]).to(v.dtype)
        total = total + ((competitors * exp_s).sum(dim=1).log() - s[:, j]).sum()
    return total / (M * (M - 1))


def row_sort(v: Tensor, y: Tensor) -> Tensor:
    """Sort each row by label distance and cumulate with ``logcumsumexp``, reading at the end of ties."""
    s, d, M = _similarities(v), (y[:, None] - y).abs().double(), len(v)
    d, order = d.fill_diagonal_(-1).sort(dim=1, descending=True)
    d, order = d[:, :-1].contiguous(), order[:, :-1]
    s = s.gather(1, order)
    tie_end = torch.searchsorted(-d, -d, right=True) - 1
    return (s.logcumsumexp(dim=1).gather(1, tie_end) - s).sum() / (M * (M - 1))


def supcon(v: Tensor, y: Tensor, s: Tensor | None = None) -> Tensor:
    """Supervised contrastive loss: samples of equal label are positives."""
    s = _similarities(v) if s is None else s
    itself = torch.eye(len(v), dtype=torch.bool)
    s = s.masked_fill(itself, -torch.inf)
    positive = ((y[:, None] == y) & ~itself).to(v.dtype)
    log_p = (s - s.logsumexp(dim=1, keepdim=True)).masked_fill(itself, 0)
    return -((log_p * positive).sum(1) / positive.sum(1).clamp_min(1)).mean()


def supcon_cosine(v: Tensor, y: Tensor) -> Tensor:
    """The same on cosine similarities, its usual form: a matrix product without a distance."""
    x = F.normalize(v, dim=1)
    return supcon(v, y, x @ x.T / 0.1)


def infonce(v: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of the other view among all others; samples are ordered view by view."""
    s, M = _similarities(v), len(v)
    s = s.masked_fill(torch.eye(M, dtype=torch.bool), -torch.inf)
    return F.cross_entropy(s, (torch.arange(M) + M // 2) % M)


def distances(v: Tensor, y: Tensor) -> Tensor:
    """Only the similarity matrix, summed."""
    return _similarities(v).sum()


def _similarities(v: Tensor) -> Tensor:
    return -torch.cdist(v, v, compute_mode="use_mm_for_euclid_dist") / TEMPERATURE


CANDIDATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rnc_loss": rnc,
    "official": official,
    "row sort": row_sort,
    "plain path": plain_path,
    "SupCon": supcon,
    "SupCon (cosine)": supcon_cosine,
    "InfoNCE": infonce,
    "cdist": distances,
    "RankSim": ranksim,
    "Ordinal Entropy": ordinal_entropy,
}
#: The largest batch on which each is timed. With continuous labels, who is not named takes as long as with ages.
LARGEST = {
    "ages": {"rnc_loss": 2**20, "official": 512, "row sort": 2048, "plain path": 1024}
    | dict.fromkeys(("SupCon", "SupCon (cosine)", "InfoNCE", "cdist", "RankSim", "Ordinal Entropy"), 4096),
    "continuous": {"rnc_loss": 2**20, "row sort": 2048, "plain path": 1024, "SupCon": 4096, "cdist": 4096,
                   "RankSim": 1024, "Ordinal Entropy": 512},
}  # fmt: skip
#: Turns that each takes at the least: those two where both are timed, and the others.
COMPARED, COMPARED_TURNS, OTHER_TURNS = ("rnc_loss", "SupCon"), 7, 3

#: Kinds of batches for the largest size, where each takes long.
FEW = (
    "as drawn", "reach 1", "reach 30", "reach 1000", "one outlier", "collapsed", "all labels equal",
    "all labels different",
)  # fmt: skip

#: What each profile measures: dimensions, batch sizes, seconds for each setting, and at the first of the dimensions
#: larger batches for rnc_loss alone and the batch sizes whose memory is measured; the kinds of batches by their size,
#: and the largest of them on which the plain path takes part; M, d and steps of the training.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "d": (128, 512), "M": (256, 512, 1024, 2048, 4096), "seconds": 1.0,
        "alone": {"ages": (8192, 16384), "continuous": (8192,)},
        "memory": {("rnc_loss", "ages"): (1024, 4096, 8192, 16384, 32768),
                   ("rnc_loss", "continuous"): (1024, 4096, 8192, 16384),
                   ("row sort", "ages"): (512, 1024, 2048, 4096), ("SupCon", "ages"): (512, 1024, 2048, 4096),
                   ("official", "ages"): (256, 512)},
        "regimes": {512: REGIMES, 1024: REGIMES, 2048: REGIMES, 4096: FEW}, "plain": 512,
        "trained": (1024, 512, (0, 1, 2, 5, 10, 20, 50, 100, 200)),
    },
    "quick": {
        "d": (128,), "M": (256, 512, 1024), "seconds": 0.5,
        "alone": {"ages": (2048, 4096), "continuous": (2048,)},
        "memory": {("rnc_loss", "ages"): (1024, 4096, 8192),
                   ("row sort", "ages"): (512, 1024), ("SupCon", "ages"): (1024,)},
        "regimes": {512: REGIMES, 1024: FEW}, "plain": 512,
        "trained": (512, 512, (0, 1, 2, 5, 10, 20, 50, 100)),
    },
    "smoke": {
        "d": (16,), "M": (32, 64), "seconds": 0.02,
        "alone": {"ages": (128,), "continuous": ()},
        "memory": {("rnc_loss", "ages"): (64,)},
        "regimes": {32: REGIMES, 64: FEW}, "plain": 32,
        "trained": (32, 16, (0, 1, 2)),
    },
}  # fmt: skip


def say(text: str) -> None:
    """Progress, on the error stream."""
    print(text, file=sys.stderr, flush=True)


def measure(profile: str = "quick", *, memory: bool = True, report: Callable[[str], None] = say) -> dict[str, Any]:
    """Measure on this machine and return the record.

    Parameters
    ----------
    profile : {'smoke', 'quick', 'paper'}
        How large the batches get: seconds, about two minutes, about ten.
    memory : bool
        Measure memory too, in processes of its own.
    report : callable
        Told what is being measured; by default it says so on the error stream.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}; allowed: " + ", ".join(map(repr, PROFILES)))
    plan, threads = PROFILES[profile], torch.get_num_threads()
    torch.set_num_threads(1)
    commit, clean = results.commit()
    record: dict[str, Any] = {"experiment": "benchmark", "profile": profile, "commit": commit, "clean": clean}
    record |= {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine()}
    try:
        record["times"] = _measure_times(plan, report)
        record["regimes"] = _measure_regimes(plan, report)
        record["trained"] = _measure_trained(plan, report)
    finally:
        torch.set_num_threads(threads)
    record["memory"] = []
    for (name, labels), sizes in plan["memory"].items() if memory else ():
        for M in sizes:
            report(f"memory: {name}, M = {M}, {labels}")
            record["memory"].append(_memory_in_a_process(name, M, plan["d"][0], labels))
    return record


def _measure_times(plan: dict[str, Any], report: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for d in plan["d"]:
        for labels in LABELS:
            alone = plan["alone"][labels] if d == plan["d"][0] else ()
            for M in (*plan["M"], *alone):
                names = [name for name in CANDIDATES if LARGEST[labels].get(name, 0) >= M]
                report(f"time: M = {M}, d = {d}, {labels}")
                setting = {"M": M, "d": d, "labels": labels}
                rows += _rows(setting, ["rnc_loss"] if M in alone else names, make_batch(M, d, labels), plan["seconds"])
    return rows


def _measure_regimes(plan: dict[str, Any], report: Callable[[str], None]) -> list[dict[str, Any]]:
    rows = []
    for d in plan["d"]:
        for M, kinds in plan["regimes"].items():
            names = [*COMPARED, "plain path"] if plan["plain"] >= M else [*COMPARED]
            for regime in kinds:
                report(f"regime: M = {M}, d = {d}, {regime}")
                v, y = make_regime(regime, M, d)
                setting = {"regime": regime, "M": M, "d": d, "reach": reach(v)}
                rows += _rows(setting, names, (v, y), plan["seconds"] / 3)
    return rows


def _measure_trained(plan: dict[str, Any], report: Callable[[str], None]) -> list[dict[str, Any]]:
    rows, (M, d, steps) = [], plan["trained"]
    report(f"training: M = {M}, d = {d}")
    for step, v, y in trained_batches(M, d, steps):
        report(f"time: the batch at step {step} of the training")
        setting = {"step": step, "M": M, "d": d, "reach": reach(v)}
        rows += _rows(setting, [*COMPARED, "plain path"], (v, y), plan["seconds"] / 3)
    return rows


def _rows(
    setting: dict[str, Any], names: Sequence[str], batch: tuple[Tensor, Tensor], seconds: float
) -> list[dict[str, Any]]:
    """A line of the record for each candidate: its time in ms at each of its turns."""
    v, y = batch
    times: dict[str, list[float]] = {name: [] for name in names}
    compared = COMPARED if set(COMPARED) <= set(names) else ()
    least = {name: COMPARED_TURNS if name in compared else OTHER_TURNS for name in names}
    start = time.perf_counter()
    for turn in range(30):
        late = time.perf_counter() - start > seconds
        taking = [name for name in names if not late or turn < least[name]]
        if not taking:
            break
        for name in taking:
            begin = time.perf_counter()
            CANDIDATES[name](v, y).backward()
            times[name].append(1e3 * (time.perf_counter() - begin))
            v.grad = None
    return [{"loss": name} | setting | {"ms": ms} for name, ms in times.items()]


def _memory_in_a_process(name: str, M: int, d: int, labels: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rnclib.benchmark", "--measure-memory", name, str(M), str(d), labels]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(out.stdout)


def _memory(name: str, M: int, d: int, labels: str) -> dict[str, Any]:
    """Peak of the resident memory during one call, above that of the process with the batch in hand."""
    torch.set_num_threads(1)
    CANDIDATES[name](*make_batch(16, d, labels)).backward()  # libraries are loaded
    v, y = make_batch(M, d, labels)
    before, _ = resident()
    CANDIDATES[name](v, y).backward()
    _, peak = resident()
    return {"loss": name, "M": M, "d": d, "labels": labels, "bytes": max(0, peak - before)}


def machine() -> dict[str, Any]:
    """What the record says about the machine."""
    model = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        model = found.group(1) if found else model
    return {
        "cpu": re.sub(r"\((R|TM)\)", "", model),
        "cores": os.cpu_count(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": 1,
    }


def load(
    profile: str, results_dir: str | os.PathLike | None = None, experiment: str = "benchmark"
) -> list[dict[str, Any]]:
    """Records of a profile, one for each machine, the newest first.

    Parameters
    ----------
    profile : {'smoke', 'quick', 'paper'}
    results_dir : path, optional
        By default `rnclib.results.results_dir`.
    experiment : {'benchmark', 'throughput'}
        Of the loss, or of training on images.

    Raises
    ------
    FileNotFoundError
        If there are none; the message says how to make one.
    """
    folder = results.folder(results_dir or results.results_dir(), profile, experiment)
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise FileNotFoundError(
            f"no {experiment} record in {folder}: run python -m rnclib.{experiment} --profile {profile}"
        )
    return sorted(records, key=lambda record: record["started"], reverse=True)


def save(record: dict[str, Any], results_dir: str | os.PathLike | None = None) -> Path:
    """Write a record under the name of its machine."""
    machine = record["machine"]
    name = re.sub(r"[^a-z0-9]+", "-", machine.get("gpu", machine["cpu"]).lower()).strip("-")
    path = (
        results.folder(results_dir or results.results_dir(), record["profile"], record["experiment"]) / f"{name}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for key, value in record.items():
        text = json.dumps(value)
        if isinstance(value, list):  # a line for each measurement
            text = "[\n" + ",\n".join(json.dumps(_rounded(row)) for row in value) + "\n]"
        lines.append(f"{json.dumps(key)}: {text}")
    results.write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    return path


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Its measurements to four digits."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(one) for one in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {key: short(value) for key, value in row.items()}


def medians(record: dict[str, Any]) -> pd.DataFrame:
    """One line for each setting and loss: the median time in ms.

    Parameters
    ----------
    record : dict
        From `measure` or `load`.
    """
    return _medians(record["times"])


def _medians(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row | {"ms": float(np.median(row["ms"]))} for row in rows])


def ratios(record: dict[str, Any]) -> pd.DataFrame:
    """Median times in ms of SupCon, and of the others as multiples of it (above 1: they take longer).

    Parameters
    ----------
    record : dict
        From `measure` or `load`.
    """
    table = medians(record).pivot_table(index=["labels", "d", "M"], columns="loss", values="ms")
    table = table.reindex(columns=[name for name in CANDIDATES if name in table.columns]).dropna(subset=["SupCon"])
    others = table.drop(columns="SupCon").div(table["SupCon"], axis=0)
    return pd.concat([table[["SupCon"]].rename(columns={"SupCon": "SupCon, ms"}), others], axis=1).reset_index()


def regimes(record: dict[str, Any]) -> pd.DataFrame:
    """What the kinds of batches cost: a line for each of `rnclib.regimes.REGIMES` and setting.

    Columns ``regime``, ``M``, ``d``, ``reach``, ``ms`` (of rnc_loss), and its multiples of the time of others:
    ``SupCon`` and ``plain path`` on the same batch, ``SupCon as drawn`` on normal embeddings with ages.

    Parameters
    ----------
    record : dict
        From `measure` or `load`.

    Raises
    ------
    ValueError
        If the record was made before regimes were measured.
    """
    return _beside_others(record, "regimes", "regime", "SupCon as drawn")


def trained(record: dict[str, Any]) -> pd.DataFrame:
    """What the batches of a training cost, step by step.

    Columns as those of `regimes`, with ``step`` for ``regime``, and ``SupCon at step 0`` for ``SupCon as drawn``.

    Parameters
    ----------
    record : dict
        From `measure` or `load`.

    Raises
    ------
    ValueError
        If the record was made before they were measured.
    """
    return _beside_others(record, "trained", "step", "SupCon at step 0")


def _beside_others(record: dict[str, Any], part: str, kind: str, first: str) -> pd.DataFrame:
    """Multiples of the times of others on the same batch, and of SupCon's on the first one of that size."""
    if part not in record:
        again = f"python -m rnclib.benchmark --profile {record['profile']}"
        raise ValueError(f"record: got one without {part!r}; allowed: one made by this version, see {again}")
    table = _medians(record[part])
    batches = table.drop(columns=["loss", "ms"]).drop_duplicates()[[kind, "M", "d", "reach"]]
    ms = {name: of.set_index([kind, "M", "d"])["ms"] for name, of in table.groupby("loss")}
    at = pd.MultiIndex.from_frame(batches[[kind, "M", "d"]])
    ours, supcon = ms["rnc_loss"].reindex(at).to_numpy(), ms["SupCon"].reindex(at).to_numpy()
    drawn = batches.assign(ms=supcon).groupby(["M", "d"])["ms"].transform("first")
    plain = ms["plain path"].reindex(at).to_numpy()
    return batches.assign(
        **{"ms": ours, "SupCon": ours / supcon, first: ours / drawn, "plain path": ours / plain}
    ).reset_index(drop=True)


def exponents(record: dict[str, Any], largest: int = 3) -> pd.DataFrame:
    """Slope of log time against log M over the largest batch sizes of each loss.

    Parameters
    ----------
    record : dict
        From `measure` or `load`.
    largest : int
        How many batch sizes.
    """
    rows = []
    for (name, labels, d), group in medians(record).groupby(["loss", "labels", "d"], sort=False):
        group = group.sort_values("M").tail(largest)
        if len(group) > 1:
            slope = np.polyfit(np.log(group["M"]), np.log(group["ms"]), 1)[0]
            rows.append({"loss": name, "labels": labels, "d": d, "from M": group["M"].min(), "to M": group["M"].max(),
                         "exponent": slope})  # fmt: skip
    return pd.DataFrame(rows)


def main(argv: list[str] | None = None) -> None:
    """Command line: measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m rnclib.benchmark", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--profile", choices=PROFILES, default="quick", help="how large the batches get")
    parser.add_argument("--results-dir", help="folder of the records (default: book/results)")
    parser.add_argument("--no-memory", action="store_true", help="measure times only")
    parser.add_argument("--measure-memory", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.measure_memory:
        name, M, d, labels = arguments.measure_memory
        print(json.dumps(_memory(name, int(M), int(d), labels)))
        return
    record = measure(arguments.profile, memory=not arguments.no_memory)
    path = save(record, arguments.results_dir)
    print(", ".join(f"{key} {value}" for key, value in record["machine"].items()))
    print("\nForward and backward: SupCon in ms, the others as multiples of it\n")
    print(ratios(record).to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
    print("\nrnc_loss as multiples of others on the same batch, by kind of batch and by step of a training\n")
    for table in (regimes(record), trained(record)):
        print(table.to_string(index=False, float_format="{:.2f}".format, na_rep="-") + "\n")
    print("Exponent of M\n")
    print(exponents(record).to_string(index=False, float_format="{:.2f}".format))
    if record["memory"]:
        memory = pd.DataFrame(record["memory"])
        memory["MB"] = memory.pop("bytes") / 1e6
        print("\nPeak memory above the start of the process\n")
        print(memory.to_string(index=False, float_format="{:.1f}".format))
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
