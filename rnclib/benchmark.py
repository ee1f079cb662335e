"""Time and memory of the loss beside other ways to write it, and beside the losses its users know.

``python -m rnclib.benchmark`` measures on this machine, prints the ratio tables and leaves one JSON record. Every
time is forward plus backward on one CPU thread in float32. The candidates take turns within one process, so that
whatever else the machine does hits all of them; memory is measured in a fresh process for each figure.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from rnclib import results
from rnclib.loss import rnc_loss

__all__ = [
    "CANDIDATES", "exponents", "literal", "load", "machine", "measure", "medians", "ratios", "rnc", "save", "say",
]  # fmt: skip

TEMPERATURE = 2.0


def literal(v: Tensor, y: Tensor) -> Tensor:
    """Equation by equation: for each j, a masked sum over all k; M - 1 matrices are kept for backward."""
    s, d, others = _similarities(v), (y[:, None] - y).abs(), ~torch.eye(len(v), dtype=torch.bool)
    total = v.new_zeros(())
    for j in range(len(v)):
        competitors = others & (d >= d[:, j : j + 1])
        terms = torch.where(competitors, s, -torch.inf).logsumexp(dim=1) - s[:, j]
        total = total + terms[others[:, j]].sum()
    return total / (len(v) * (len(v) - 1))


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


def rnc(v: Tensor, y: Tensor) -> Tensor:
    """The loss of this package."""
    return rnc_loss(v, y, temperature=TEMPERATURE, validate=False)


def _similarities(v: Tensor) -> Tensor:
    return -torch.cdist(v, v, compute_mode="use_mm_for_euclid_dist") / TEMPERATURE


CANDIDATES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rnc_loss": rnc,
    "literal": literal,
    "row sort": row_sort,
    "SupCon": supcon,
    "SupCon (cosine)": supcon_cosine,
    "InfoNCE": infonce,
    "cdist": distances,
}
LARGEST = {"literal": 512, "row sort": 2048, "SupCon": 4096, "SupCon (cosine)": 4096, "InfoNCE": 4096, "cdist": 4096}
LABELS = ("ages", "continuous")

#: What each profile measures: dimensions, batch sizes, larger ones for rnc_loss alone, seconds for each setting, the
#: batch whose embeddings are pulled apart, and the batch sizes whose memory is measured.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {
        "d": (128, 512), "M": (256, 512, 1024, 2048, 4096), "seconds": 5.0, "spread": (1024, 128),
        "alone": {"ages": (8192, 16384), "continuous": (8192,)},
        "memory": {("rnc_loss", "ages"): (1024, 4096, 16384, 65536),
                   ("rnc_loss", "continuous"): (1024, 4096, 16384, 65536),
                   ("row sort", "ages"): (512, 1024, 2048, 4096), ("SupCon", "ages"): (512, 1024, 2048, 4096),
                   ("literal", "ages"): (256, 512)},
    },
    "quick": {
        "d": (128, 512), "M": (256, 512, 1024), "seconds": 1.5, "spread": (1024, 128),
        "alone": {"ages": (2048, 4096), "continuous": (2048,)},
        "memory": {("rnc_loss", "ages"): (1024, 4096), ("row sort", "ages"): (512, 1024), ("SupCon", "ages"): (1024,)},
    },
    "smoke": {
        "d": (16,), "M": (32, 64), "seconds": 0.02, "spread": (64, 16),
        "alone": {"ages": (128,), "continuous": ()},
        "memory": {("rnc_loss", "ages"): (64,)},
    },
}  # fmt: skip


def make_batch(M: int, d: int, labels: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Normal embeddings of M/2 samples in two views, or of M samples with distinct labels."""
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(M, d, generator=generator).requires_grad_()
    if labels == "ages":
        return v, torch.randint(1, 102, (M // 2,), generator=generator).repeat(2)
    return v, torch.randn(M, generator=generator)


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
    record |= {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(), "times": []}
    try:
        for d in plan["d"]:
            for labels in LABELS:
                for M in (*plan["M"], *plan["alone"][labels]):
                    names = [n for n in CANDIDATES if M in plan["M"] and LARGEST.get(n, M) >= M] or ["rnc_loss"]
                    if labels == "continuous":  # the other losses do not depend on the labels' values
                        names = [n for n in names if n in ("rnc_loss", "row sort", "SupCon", "cdist")]
                    report(f"time: M = {M}, d = {d}, {labels}")
                    for name, seconds in _take_turns(names, make_batch(M, d, labels), plan["seconds"]).items():
                        row = {"loss": name, "M": M, "d": d, "labels": labels, "ms": [1e3 * t for t in seconds]}
                        record["times"].append(row)
        M, d = plan["spread"]
        report(f"time: M = {M}, d = {d}, embeddings farther and farther apart")
        v, y = make_batch(M, d, "ages")
        record["spread"] = []
        for scale in (1, 5, 100):
            times = _take_turns(["rnc_loss"], ((scale * v.detach()).requires_grad_(), y), plan["seconds"])["rnc_loss"]
            reach = scale * float(v.detach().norm(dim=1).max()) / TEMPERATURE
            record["spread"].append({"scale": scale, "reach": reach, "ms": float(np.median(times) * 1e3)})
    finally:
        torch.set_num_threads(threads)
    record["memory"] = []
    for (name, labels), sizes in plan["memory"].items() if memory else ():
        for M in sizes:
            report(f"memory: {name}, M = {M}, {labels}")
            record["memory"].append(_memory_in_a_process(name, M, plan["d"][0], labels))
    return record


def _take_turns(names: list[str], batch: tuple[Tensor, Tensor], seconds: float) -> dict[str, list[float]]:
    """Times of each candidate, once a round: at least three rounds, and up to thirty as the time allows."""
    v, y = batch
    times: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for turn in range(30):
        for name in names:
            begin = time.perf_counter()
            CANDIDATES[name](v, y).backward()
            times[name].append(time.perf_counter() - begin)
            v.grad = None
        if turn >= 2 and time.perf_counter() - start > seconds:
            break
    return times


def _memory_in_a_process(name: str, M: int, d: int, labels: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "rnclib.benchmark", "--measure-memory", name, str(M), str(d), labels]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(out.stdout)


def _memory(name: str, M: int, d: int, labels: str) -> dict[str, Any]:
    """Peak of the resident memory during one call, above that of the process with the batch in hand."""
    torch.set_num_threads(1)
    CANDIDATES[name](*make_batch(16, d, labels)).backward()  # libraries are loaded
    v, y = make_batch(M, d, labels)
    before, _ = _resident()
    CANDIDATES[name](v, y).backward()
    _, peak = _resident()
    return {"loss": name, "M": M, "d": d, "labels": labels, "bytes": max(0, peak - before)}


def _resident() -> tuple[int, int]:
    """Resident memory of this process now and at its peak, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, whose peak a process inherits from the one that started it
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", status.read_text(), re.MULTILINE))
        return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak, peak


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
    """Records of a profile, one for each machine.

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
    return records


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
    """Its lists of measurements to four digits."""
    return {
        key: [float(f"{one:.4g}") for one in value] if isinstance(value, list) else value for key, value in row.items()
    }


def medians(record: dict[str, Any]) -> pd.DataFrame:
    """One line for each setting and loss: the median time in ms.

    Parameters
    ----------
    record : dict
        From `measure` or `load`.
    """
    return pd.DataFrame([row | {"ms": float(np.median(row["ms"]))} for row in record["times"]])


def ratios(record: dict[str, Any]) -> pd.DataFrame:
    """Median times in ms of rnc_loss, and of the others as multiples of it (above 1: they take longer).

    Parameters
    ----------
    record : dict
        From `measure` or `load`.
    """
    table = medians(record).pivot_table(index=["labels", "d", "M"], columns="loss", values="ms")
    table = table.reindex(columns=[name for name in CANDIDATES if name in table.columns])
    others = table.drop(columns="rnc_loss").div(table["rnc_loss"], axis=0)
    return pd.concat([table[["rnc_loss"]].rename(columns={"rnc_loss": "rnc_loss, ms"}), others], axis=1).reset_index()


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
    print("\nForward and backward: rnc_loss in ms, the others as multiples of it\n")
    print(ratios(record).to_string(index=False, float_format="{:.2f}".format, na_rep="-"))
    print("\nExponent of M\n")
    print(exponents(record).to_string(index=False, float_format="{:.2f}".format))
    if record["memory"]:
        memory = pd.DataFrame(record["memory"])
        memory["MB"] = memory.pop("bytes") / 1e6
        print("\nPeak memory above the start of the process\n")
        print(memory.to_string(index=False, float_format="{:.1f}".format))
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
