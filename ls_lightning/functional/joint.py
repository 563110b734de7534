"""One pass over a batch for both accumulators: the sums of bins, and the sketch of the order of samples."""

import torch
from torch import Tensor

from ls_lightning.functional.native.measure import add_rows
from ls_lightning.functional.outputs import Spec, as_rows
from ls_lightning.functional.ranking import as_ranked
from ls_lightning.functional.samples import measure
from ls_lightning.functional.sketch import sketch_samples
from ls_lightning.functional.sums import ROWS, add_sums, sum_samples


@torch.no_grad()
def add_to_both(sums: Tensor, sketch: Tensor, logits: Tensor, target: Tensor, spec: Spec) -> tuple[Tensor, Tensor]:
    """Return the sums and the sketch with a batch added, the same bits as `calibration_sums` and `sketch` add.

    Args:
        sums: of `calibration_sums`; may be written to.
        sketch: of a `Ranking` by the probability of the predicted class that reads samples as `spec` does; may be
            written to.
        logits: as `spec` says.
        target: likewise.
        spec: how to read and bin them.

    Raises:
        TypeError, ValueError: dtypes or shapes do not fit.
    """
    scores, labels = as_rows(logits, target, spec)
    if add_rows(scores, labels, spec, sums, sketch):
        return sums, sketch
    sketch = sketch.clone()
    device = sums.device
    if device.type == "mps":  # has no float64
        sums, sketch, scores, labels = sums.cpu(), sketch.cpu(), scores.cpu(), labels.cpu()
    for start in range(0, len(labels), ROWS):
        samples = measure(scores[start : start + ROWS], labels[start : start + ROWS], spec)
        sums = add_sums(sums, sum_samples(samples, spec))
        sketch_samples(sketch, as_ranked(samples))
    return sums.to(device), sketch.to(device)
