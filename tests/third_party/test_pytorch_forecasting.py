import numpy as np
import pytest
from theirs import Suite

pd = pytest.importorskip("pandas")
forecasting = pytest.importorskip("pytorch_forecasting")
data = pytest.importorskip("pytorch_forecasting.data")
metrics = pytest.importorskip("pytorch_forecasting.metrics")
pytestmark = pytest.mark.third_party


def series():
    weeks = [pd.DataFrame({"week": np.arange(40), "shop": shop}) for shop in "ab"]
    table = pd.concat(weeks, ignore_index=True)
    generator = np.random.default_rng(3)
    table["sales"] = generator.normal(size=len(table))
    table["demand"] = generator.choice(["low", "mid", "high"], len(table))
    return forecasting.TimeSeriesDataSet(
        table,
        time_idx="week",
        target="demand",
        group_ids=["shop"],
        max_encoder_length=6,
        max_prediction_length=3,
        time_varying_unknown_reals=["sales"],
        target_normalizer=data.NaNLabelEncoder(),
    )


class TestTemporalFusionTransformer(Suite):
    """A class for each week to come; the loss is a torchmetrics.Metric around an unreduced F.cross_entropy."""

    def make(self):
        return forecasting.TemporalFusionTransformer.from_dataset(
            series(),
            hidden_size=4,
            hidden_continuous_size=4,
            attention_head_size=1,
            output_size=3,
            loss=metrics.CrossEntropy(),
            logging_metrics=[],
            learning_rate=0.01,
        )

    def loaders(self):
        return tuple(series().to_dataloader(train=train, batch_size=16) for train in (True, False))

    def hooked(self, module):
        return module.output_layer

    def logits(self, step):
        return step.outputs[0].transpose(1, 2)

    def target(self, step):
        return step.batch[1][0]
