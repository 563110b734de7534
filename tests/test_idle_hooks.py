"""Hooks that do nothing are not called, those of a class made from ours are."""

import lightning as L
import pytest
from lightning.pytorch.profilers import SimpleProfiler
from nets import Data, Net, trainer

import ls_lightning as ls

EMPTY = ["on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step"]


class Own(ls.LabelSmoothing):
    calls = 0

    def on_after_backward(self, *args):
        super().on_after_backward(*args)
        self.calls += 1


@pytest.mark.parametrize("callback", [ls.LabelSmoothing(), Own()], ids=["ours", "own"])
def test_what_is_called_of_a_callback(tmp_path, callback):
    profiler = SimpleProfiler()
    for _ in range(2):
        trainer(tmp_path, callback, profiler=profiler).fit(Net(), datamodule=Data())
    called = {key.rpartition(".")[2] for key in profiler.recorded_durations if type(callback).__name__ in key}
    own = isinstance(callback, Own)
    assert called & set(EMPTY) == ({"on_after_backward"} if own else set())
    assert {"setup", "on_train_batch_end"} <= called
    assert not own or callback.calls == 24


def test_beneath_a_callback_that_hands_on_all_that_it_is_called_for(tmp_path):
    class Outer(L.Callback):
        inner = ls.LabelSmoothing(eps=0.2)

        def setup(self, *args, stage):
            self.inner.setup(*args, stage=stage)

        def on_after_backward(self, *args):
            self.inner.on_after_backward(*args)

    net = Net()
    trainer(tmp_path, Outer()).fit(net, datamodule=Data())
    assert len(net.seen) == 12
