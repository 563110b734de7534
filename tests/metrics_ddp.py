"""What every metric says on one rank of several: python metrics_ddp.py FOLDER RANK RANKS."""

import sys
import warnings

import torch
import torch.distributed as dist
from test_metrics_robust import METRICS, example, make


def share(rank, ranks):
    """Batches of this rank; the last of several ranks has no data."""
    logits, target = example(500)
    if ranks == 1:
        return [(logits, target)]
    if rank == ranks - 1:
        return []
    rows = torch.arange(rank, len(target), ranks - 1)
    return [(logits[part], target[part]) for part in rows.split(41 + 10 * rank)]


def main(folder, rank, ranks):
    warnings.filterwarnings("ignore", message=".*before the ``update``.*")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{ranks}", rank=rank, world_size=ranks)
    found = {}
    for cls in METRICS:
        metric = make(cls)
        for batch in share(rank, ranks):
            metric.update(*batch)
        found[cls.__name__] = metric.compute()
    torch.save(found, f"{folder}/{ranks}-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
