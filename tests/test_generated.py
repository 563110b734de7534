"""Generated data with dense labels, their models, and jobs in which places without a label count nowhere."""

import hashlib
import itertools
import math

import lightning as L
import pytest
import torch
from cli import result, run_here
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from ls_lightning.zoo import FCN, Classifier, ShapesData, Tagger, TagsData
from ls_lightning.zoo.counted_bce import CountedBCE
from ls_lightning.zoo.hidden_markov import HiddenMarkovChain
from ls_lightning.zoo.shapes import mask_border

KINDS = {"shapes": ShapesData, "tags": TagsData}


def ready(kind, **options):
    data = KINDS[kind](**{"num_train": 7, "num_val": 5, "num_test": 6, **options})
    data.setup()
    return data


def digest(dataset):
    parts = (dataset.x.long().numpy(), dataset.target.long().numpy())
    return hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts)).hexdigest()[:16]


@pytest.mark.parametrize(("kind", "expected"), [("shapes", "9973c99dacc69028"), ("tags", "dcc5d5da8256d99f")])
def test_a_seed_gives_the_same_samples_everywhere(kind, expected):
    assert digest(ready(kind).test_set) == expected
    assert digest(ready(kind, num_train=2, num_val=3).test_set) == expected
    assert digest(ready(kind, split_seed=1).test_set) != expected


@pytest.mark.parametrize(("kind", "ignored"), [("shapes", 255), ("tags", -100)])
def test_label_noise_spares_places_without_a_label(kind, ignored):
    data = ready(kind, label_noise=0.4)
    clean, noisy = data.train_labels_clean, data.train_labels
    there = clean != ignored
    assert 0 < int((~there).sum()) < there.numel()
    torch.testing.assert_close(noisy == ignored, ~there)
    assert int((noisy != clean).sum()) == round(0.4 * int(there.sum()))
    assert data.measured_noise == {"train": pytest.approx(0.4, abs=1 / int(there.sum())), "val": 0.0}
    assert noisy[there].max() < data.num_classes


@pytest.mark.parametrize("width", [0, 1, 2])
def test_a_border_is_where_another_label_is_near(width):
    labels = torch.randint(3, (2, 7, 6), generator=torch.Generator().manual_seed(0)).cumsum(1) // 9
    masked = mask_border(labels, width, 255)
    for n, i, j in itertools.product(range(2), range(7), range(6)):
        near = labels[n, max(0, i - width) : i + width + 1, max(0, j - width) : j + width + 1]
        assert masked[n, i, j] == (labels[n, i, j] if len(near.unique()) == 1 else 255)


def brute_force(chain, tokens):
    """Posterior of each place by adding up all tag sequences."""
    tags, length = range(len(chain.start)), len(tokens)
    mass = [[0.0 for _ in tags] for _ in range(length)]
    for path in itertools.product(tags, repeat=length):
        weight = float(chain.start[path[0]])
        for before, after in itertools.pairwise(path):
            weight *= float(chain.step[before, after])
        for tag, token in zip(path, tokens, strict=True):
            weight *= float(chain.emission[tag, token - 1])
        for place, tag in enumerate(path):
            mass[place][tag] += weight
    return torch.tensor([[one / sum(row) for one in row] for row in mass], dtype=torch.float64).T


def test_the_posterior_is_that_of_all_tag_sequences_whatever_the_padding():
    rng = torch.Generator().manual_seed(0)
    start, step, emission = (torch.rand(shape, generator=rng).double() for shape in ((3,), (3, 3), (3, 4)))
    chain = HiddenMarkovChain(start / start.sum(), step / step.sum(1, True), emission / emission.sum(1, True))
    tokens = torch.tensor([[1, 4, 2, 2, 3, 1], [3, 3, 1, 0, 0, 0], [2, 0, 0, 0, 0, 0]])
    found = chain.log_posterior(tokens).exp()
    for row, length in zip(range(3), (6, 3, 1), strict=True):
        torch.testing.assert_close(found[row, :, :length], brute_force(chain, tokens[row, :length].tolist()))


def test_the_tags_are_drawn_from_their_posterior():
    """NLL and accuracy of the posterior are, within four standard errors, what it expects of itself."""
    data = ready("tags", num_test=500)
    log_p, target = data.log_posterior().movedim(1, 2), data.test_set.target
    log_p, target = log_p[target >= 0], target[target >= 0]
    for seen, expected in (
        (-log_p.gather(1, target[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(1)),
        ((log_p.argmax(1) == target).double(), log_p.exp().amax(1)),
    ):
        error = seen - expected
        assert abs(error.mean()) < 4 * error.std() / math.sqrt(len(error))


@pytest.mark.parametrize("options", [{"num_tokens": 21}, {"min_length": 9, "max_length": 8}, {"token_noise": math.nan}])
def test_wrong_options_of_tags_are_refused(options):
    with pytest.raises(ValueError, match=next(reversed(options))):
        TagsData(**options)


def test_the_tagger_does_not_read_padding():
    torch.manual_seed(0)
    model, tokens = Tagger(3, num_tokens=9, width=4).eval(), torch.randint(1, 10, (4, 6))
    tokens[1, 4:] = 0
    longer = F.pad(tokens, (0, 5))
    torch.testing.assert_close(model(longer)[:, :, :6][0], model(tokens)[0])
    torch.testing.assert_close(model(longer)[1, :, :4], model(tokens[1:2, :4])[0])


def test_an_fcn_sees_as_far_as_its_dilations_say():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 15, 15, requires_grad=True)
    FCN((2, 15, 15), 3, dilations=[1, 3]).eval()(x)[0, :, 7, 7].sum().backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert (seen.amin(0).tolist(), seen.amax(0).tolist()) == ([3, 3], [11, 11])
    with pytest.raises(ValueError, match="needs images"):
        FCN((30,), 2)


def test_binary_places_without_a_label_have_no_influence():
    logits, target = torch.randn(4, 1, 5, requires_grad=True), torch.randint(2, (4, 1, 5)).float()
    target[1], target[:, :, 2] = 255, 255
    there = target != 255
    loss = CountedBCE(255)(logits, target)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits[there], target[there]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[~there] == 0).all()
    assert CountedBCE(255)(logits, torch.full_like(target, 255)) == 0


@pytest.mark.parametrize("task", ["multiclass", "binary"])
def test_logged_loss_is_the_mean_over_labels(task, tmp_path):
    """Of batches with few labels, many, and none."""
    torch.manual_seed(0)
    classes = 3 if task == "multiclass" else 1
    model = Classifier(nn.Conv1d(2, classes, 1), task=task, ignore_index=9)
    x, target = torch.randn(7, 2, 5), torch.randint(max(classes, 2), (7, 5))
    target[0, :4], target[4:6] = 9, 9
    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    batches = DataLoader(TensorDataset(x, target), 2)
    (logged,) = trainer.validate(model, batches, verbose=False)
    with torch.no_grad():
        logits = model.model(x)
    expected = (
        F.cross_entropy(logits, target, ignore_index=9)
        if task == "multiclass"
        else F.binary_cross_entropy_with_logits(logits[:, 0][target != 9], target[target != 9].float())
    )
    assert logged["val/loss"] == pytest.approx(expected.item(), rel=1e-6)


SMALL = ["trainer.max_epochs=1", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
SMALL += ["data.num_train=8", "data.num_val=6", "data.num_test=6"]
JOBS = {
    "classes": ["data=shapes", "loss=prior", "data.size=8", "data.num_shapes=1", "model.channels=4"],
    "binary": ["data=shapes", "data.task=binary", "loss=bce", "data.size=8", "data.num_shapes=1", "model.channels=4"],
    "tags": ["data=tags", "loss=kl", "schedule=linear", "model.width=4"],
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    for name, settings in JOBS.items():
        with pytest.MonkeyPatch.context() as patch:
            assert run_here(patch, folder, *settings, *SMALL, f"hydra.run.dir={name}") == 0
    return folder


@pytest.mark.parametrize("name", JOBS)
def test_a_job_counts_labels_and_nothing_else(jobs, name):
    """Its NLL, accuracy and n are those that torch finds with the weights it left."""
    found = result(jobs / name)
    small = {"num_train": 8, "num_val": 6, "num_test": 6}
    if name == "tags":
        data, network = ready("tags", **small), Tagger(5, num_tokens=20, width=4)
    else:
        data = ready("shapes", **small, size=8, num_shapes=1, task="binary" if name == "binary" else "multiclass")
        network = FCN((1, 8, 8), data.num_outputs, channels=4)
    saved = torch.load(jobs / name / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
    network.load_state_dict({key.removeprefix("model."): value for key, value in saved.items()})
    x, target = data.test_set[torch.arange(6)]
    there = target != data.ignore_index
    logits = network.eval()(x).detach().movedim(1, -1)[there]
    if name == "binary":
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    labels, test = target[there].long(), found["metrics"]["test"]
    assert test["n"] == int(there.sum()) < there.numel()
    assert test["nll"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    assert test["acc"] == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert found["temperature"]["metrics"]["test"]["n"] == test["n"]
    assert {path.stem for path in (jobs / name).glob("*.png")} == {"reliability", "risk_coverage", "class_gap"}
    assert ("bayes" in found) == (name == "tags")


def test_a_job_says_what_the_true_probabilities_score(jobs):
    best, data = result(jobs / "tags")["bayes"]["test"], ready("tags", num_train=8, num_val=6, num_test=6)
    log_p, target = data.log_posterior(), data.test_set.target
    assert best["nll"] == pytest.approx(F.cross_entropy(log_p, target, ignore_index=-100).item(), rel=1e-6)
    assert best["acc"] == pytest.approx((log_p.argmax(1) == target)[target >= 0].double().mean().item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data=tags", "loss.ignore_index=3"], "loss.ignore_index must be -100, as the data has it, got 3."),
        (["data=shapes", "model=mlp"], "(8, 24, 24)"),
        (["data=digits", "model=tagger"], "Tagger needs num_tokens"),
    ],
)
def test_what_does_not_fit_is_one_line(monkeypatch, tmp_path, capsys, settings, message):
    small = [word for word in SMALL if settings[0] != "data=digits" or not word.startswith("data.")]
    assert run_here(monkeypatch, tmp_path, *settings, *small, "hydra.run.dir=job") == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]
    assert said[0].startswith("error: ")
