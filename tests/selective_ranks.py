"""One of several ranks, ``python selective_ranks.py FOLDER RANK RANKS``: measures its batches, writes what it found."""

import hashlib
import json
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from test_selective import example

from ls_lightning import metrics

CLASSES = [
    "AURC",
    "EAURC",
    "AUGRC",
    "RiskAtCoverage",
    "CoverageAtRisk",
    "RiskCoverageCurve",
    "AdaptiveCalibrationError",
]
SIZES = [50_000, 1, 9_999]  # enough for torch to use several threads where it may


def bits(values):
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


def main(folder, rank, ranks):
    warnings.filterwarnings("ignore", message=".*before the ``update``")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        logits, target = example(n=60_000, k=4, dtype=dtype)
        batches = list(zip(logits.split(SIZES), target.split(SIZES), strict=True))
        for mine in (batches[rank::ranks], batches if rank == 0 else []):  # once no other has seen anything
            for name in CLASSES:
                for mode in ("sketch", "exact"):
                    metric = getattr(metrics, name)(mode=mode)
                    for batch in mine:
                        metric.update(*batch)
                    values = [metric.compute(), *metric.bounds()]
                    found.setdefault(f"{name}_{mode}_{dtype}", []).append([*map(bits, values), metric.num_samples])
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
