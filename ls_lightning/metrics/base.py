"""What all metrics here have in common: one integer state that is only ever added."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import override

from ls_lightning.functional import measures
from ls_lightning.functional.bootstrap import Interval, Measured, bootstrap_interval
from ls_lightning.functional.from_statistics import add_statistics, can_be_read
from ls_lightning.functional.joint import add_to_both
from ls_lightning.functional.measures import ReliabilityBins
from ls_lightning.functional.outputs import Closed, Confidence, NanPolicy, Scores, Spec, Task
from ls_lightning.functional.sums import add_batch, empty_sums


class SumMetric(Metric):
    """A metric that is read off one int64 tensor, which batches and ranks are added up in.

    So its value has the same bits for any batch size, batch order and number of ranks, and metrics whose state has
    the same name share it. Subclasses call `_add_sums` once, then implement `update` and `measure`.
    """

    is_differentiable = False
    higher_is_better: bool | None = False
    full_state_update = False
    _pass: "SharedPass | None" = None

    def _add_sums(self, name: str, empty: Tensor) -> None:
        # torchmetrics lets metrics share a state of equal name and, after one batch, equal value: what is
        # read differently must not have an equal name.
        self._state = name
        self.add_state(name, empty, dist_reduce_fx="sum")

    @override
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            logits: `(N, K, d1, ...)` multiclass, `(N,)` or `(N, 1)` binary, `(N, L, ...)` multilabel.
            target: class indices `(N, d1, ...)`, or 0 and 1.
        """
        if self._pass is None:
            self.sums = self.add(self.sums, logits, target)
            return
        sums, sketch, spec = self._pass
        before = getattr(self, sums), getattr(self, sketch)
        after = add_to_both(*before, logits, target, spec)
        if after[0] is not before[0]:  # else both were written to; a Module takes its time to take a tensor
            setattr(self, sums, after[0])
            setattr(self, sketch, after[1])

    def update_statistics(self, statistics: Tensor) -> None:
        """Add a batch by what a smoothing loss has left of it, in place of `update`: the logits are not read again.

        Args:
            statistics: float32 `(4, S)`, as `smoothed_cross_entropy(..., statistics=)` writes them.

        Raises:
            ValueError: they are of another shape or dtype, or do not say what the metric reads (`reads_statistics`).
        """
        places = self._places()
        if places is None or not can_be_read(places.spec):
            raise ValueError(
                f"{type(self).__name__} reads more than the statistics of a smoothing loss say: those are for bins and "
                "sketches of the confidence, without entropy, of multiclass logits. Call update(logits, target)."
            )
        self._computed = None  # as torchmetrics does around `update`
        self._update_count += 1
        add_statistics(places.sums, places.sketch, statistics, places.spec)

    @property
    def reads_statistics(self) -> bool:
        """Whether `update_statistics` may stand in for `update`."""
        places = self._places()
        return places is not None and can_be_read(places.spec)

    def _places(self) -> "Places | None":
        """Where statistics go; None if they do not say what the state is made of."""
        if self._pass is None:
            return None
        sums, sketch, spec = self._pass
        return Places(getattr(self, sums), getattr(self, sketch), spec)

    def add(self, sums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        """Return sums with a batch added."""
        raise NotImplementedError

    @override
    def compute(self) -> Tensor:
        """Return the value over all batches and ranks, 0-d float64; NaN if nothing was counted."""
        value = self.measure(self.sums)
        return value.float().to(self.device) if self.device.type == "mps" else value.to(self.device)

    def measure(self, sums: Tensor) -> Tensor:
        """Read the metric off sums over all batches and ranks."""
        raise NotImplementedError

    @property
    def sums(self) -> Tensor:
        """This rank's sums, int64."""
        sums: Tensor = getattr(self, self._state)
        return sums

    @sums.setter
    def sums(self, sums: Tensor) -> None:
        setattr(self, self._state, sums)

    def share(self, shared: "SharedPass", empty: dict[str, Tensor]) -> None:
        """Keep two states from now on, so that metrics that read either of them share one pass over a batch."""
        self._pass = shared
        for name, sums in empty.items():
            if name not in self._defaults:
                self.add_state(name, sums.clone(), dist_reduce_fx="sum")

    def total_sums(self) -> Tensor:
        """Return the sums over all ranks; every rank has to call it."""
        if self._is_synced:
            return self.sums
        with self.sync_context(dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync):
            return self.sums

    @override
    def _sync_dist(self, *args: Any, **kwargs: Any) -> None:
        # In a collection every member synchronises itself: it does so with what it reads alone.
        reductions = self._reductions
        self._reductions = {self._state: reductions[self._state]}
        try:
            super()._sync_dist(*args, **kwargs)
        finally:
            self._reductions = reductions

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> nn.Module:
        # set_dtype, or a Trainer in bf16-true, would cast the integers, and a cached value.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, exclude_state)


class SharedPass(NamedTuple):
    """Names of the states of bins and of the sketch, and how both read samples."""

    sums: str
    sketch: str
    spec: Spec


class Places(NamedTuple):
    """Sums of bins and a sketch, None if there are none, and how both read samples."""

    sums: Tensor | None
    sketch: Tensor | None
    spec: Spec


def state_name(kind: str, spec: Spec) -> str:
    """Name the state of metrics that read samples as `spec` says; the number of classes does not matter."""
    return "_".join([kind, *(str(value) for name, value in asdict(spec).items() if name != "num_classes")])


class CalibrationMetric(SumMetric):
    """The shared state of all metrics here; subclasses say in `measure` how its sums are read.

    Args:
        task: `"multiclass"`, `"binary"` or `"multilabel"`.
        num_classes: K, or the number of labels; None takes it from the logits.
        num_bins: bins of equal width over [0, 1], at least 1; 15 is usual.
        closed: `"right"`: bins (a, b]; `"left"`: [a, b), as torchmetrics and netcal.
        input: `"logits"` or `"probs"`, which is never guessed.
        ignore_index: targets of this value are not counted.
        confidence: `"top"`, or `"positive"` (binary, multilabel): P(y=1) against y.
        nan_policy: what a sample with a NaN or +inf does: `"raise"` in `compute`, or `"omit"` it (`num_omitted`).
        entropy: sum up the entropy too, so that a `MeanEntropy` has the same state; up to a quarter slower.
        kwargs: of `torchmetrics.Metric`.

    Raises:
        TypeError, ValueError: an argument is not one of these. `compute` raises a ValueError if a target was
            out of range, or a sample no number.
    """

    def __init__(
        self,
        *,
        task: Task = "multiclass",
        num_classes: int | None = None,
        num_bins: int = 15,
        closed: Closed = "right",
        input: Scores = "logits",
        ignore_index: int | None = -100,
        confidence: Confidence = "top",
        nan_policy: NanPolicy = "raise",
        entropy: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = Spec(task, num_classes, num_bins, closed, input, ignore_index, confidence, nan_policy, entropy)
        self._add_sums(state_name("sums", self.spec), empty_sums(num_bins))

    @override
    def add(self, sums: Tensor, logits: Tensor, target: Tensor) -> Tensor:
        return add_batch(sums, logits, target, self.spec)

    @override
    def _places(self) -> Places | None:
        return super()._places() or Places(self.sums, None, self.spec)

    @property
    def num_samples(self) -> int:
        """The number of samples counted, over all ranks; every rank has to ask."""
        return measures.num_samples(self.total_sums())

    @property
    def num_omitted(self) -> int:
        """The number of samples left out by `nan_policy="omit"`, over all ranks; every rank has to ask."""
        return measures.num_omitted(self.total_sums())

    def reliability_bins(self) -> ReliabilityBins:
        """Return count, mean confidence and accuracy of each bin, over all ranks; every rank has to ask."""
        return measures.reliability_bins(self.total_sums())

    def bootstrap_interval(
        self, of: Measured = "ece", *, level: float = 0.95, num_samples: int = 1000, seed: int = 0
    ) -> Interval:
        """Return the bootstrap interval of the ECE or the gap, over all ranks; every rank has to ask.

        Arguments as :func:`~ls_lightning.functional.bootstrap_interval`.
        """
        return bootstrap_interval(self.total_sums(), of, level=level, num_samples=num_samples, seed=seed)
