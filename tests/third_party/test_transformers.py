"""A text classifier: the model makes an nn.CrossEntropyLoss in its forward, deep inside of a library."""

import lightning as L
import pytest
import torch
from theirs import Suite
from torch.utils.data import DataLoader

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.third_party


class TextClassifier(L.LightningModule):
    """As in Lightning's tutorial on transformers: what the model returns is the loss."""

    def __init__(self):
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
            num_labels=3,
        )
        self.model = transformers.BertForSequenceClassification(config)

    def training_step(self, batch, batch_idx):
        return self.model(**batch).loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.model(**batch).loss)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class TestTextClassifier(Suite):
    def make(self):
        return TextClassifier()

    def loaders(self):
        generator = torch.Generator().manual_seed(3)
        texts = [
            {
                "input_ids": torch.randint(50, (12,), generator=generator),
                "attention_mask": (torch.arange(12) < 6 + i % 7).long(),
                "labels": torch.tensor(i % 3),
            }
            for i in range(30)
        ]
        return DataLoader(texts[:16], 8), DataLoader(texts[16:], 8)

    def hooked(self, module):
        return module.model.classifier

    def target(self, step):
        return step.batch["labels"]


class LanguageModel(TextClassifier):
    """A causal language model: the labels are shifted, padding is -100."""

    def __init__(self):
        L.LightningModule.__init__(self)
        config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
        self.model = transformers.GPT2LMHeadModel(config)


class TestLanguageModel(TestTextClassifier):
    def make(self):
        return LanguageModel()

    def loaders(self):
        def as_labels(text):
            return {**text, "labels": text["input_ids"].where(text["attention_mask"] == 1, -100)}

        return tuple(DataLoader([as_labels(text) for text in loader.dataset], 8) for loader in super().loaders())

    def hooked(self, module):
        return module.model.lm_head

    def logits(self, step):
        return step.outputs[0][:, :-1].transpose(1, 2)

    def target(self, step):
        return step.batch["labels"][:, 1:]
