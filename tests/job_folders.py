"""Folders of jobs as training leaves them, with made-up numbers."""

import json
import random
from pathlib import Path

CONFIG = """\
eps: {eps}
seed: {seed}
name: null
ckpt_path: null
evaluate: last
loss:
  _target_: ls_lightning.losses.{loss}
  eps: {eps}
  spread: all
schedule:
  _target_: ls_lightning.schedules.Constant
model:
  _target_: ls_lightning.zoo.models.MLP
  hidden:
  - 128
  - 64
optimizer:
  _target_: torch.optim.AdamW
  lr: {lr}
data:
  _target_: ls_lightning.zoo.DigitsData
  label_noise: {label_noise}
  split_seed: {split_seed}
trainer:
  _target_: lightning.Trainer
  max_epochs: 40
  default_root_dir: {folder}
"""
SCHEDULES = {
    "constant": "Constant(eps={eps})",
    "linear": "Linear(start={eps}, end=0.0)",
    "cosine": "Cosine(start={eps}, end=0.0)",
}


def write_job(
    folder, eps, seed=0, *, loss="ce", schedule="constant", lr=0.002, label_noise=0.0, split_seed=0, steps=10, **keys
):
    """A finished job. ``keys`` are those of result.json; ``val`` and ``test`` are metrics, ``scaled`` those at T."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    val, test, scaled = keys.pop("val", {}), keys.pop("test", {}), keys.pop("scaled", None)
    result = {
        "schema": 1,
        "status": "complete",
        "name": folder.name,
        "eps": eps,
        "loss": loss,
        "schedule": SCHEDULES.get(schedule, schedule).format(eps=eps),
        "seed": seed,
        "model": "mlp",
        "data": "digits",
        "digest": f"{loss}-{schedule}-{eps}-{seed}-{lr}-{label_noise}-{split_seed}",
        "metrics": {stage: {**values, "n": 100} for stage, values in (("val", val), ("test", test)) if values},
        "reliability": {"test": bins()},
        "risk_coverage": {"test": risk_coverage(test.get("acc"))},
        "started": f"2026-01-01T00:00:{seed % 60:02}+0000",
        "duration_s": 7.5,
    }
    if scaled is not None:
        temperature = {"T": 1.5, "n": 100, "nll_after": 0.07, "metrics": {"test": scaled}}
        curves = {"reliability": {"test": bins()}, "risk_coverage": {"test": risk_coverage(scaled.get("acc"))}}
        result["temperature"] = {**temperature, **curves}
    result |= keys
    texts = {
        "config.yaml": CONFIG.format(
            eps=eps, seed=seed, loss=loss, lr=lr, label_noise=label_noise, split_seed=split_seed, folder=folder
        ),
        "overrides.yaml": f"overrides:\n- eps={eps}\n- seed={seed}\n- loss={loss}\n- schedule={schedule}\n"
        "- trainer.max_epochs=40\nconfig: abc\n",
        "metrics.csv": history(eps, seed, steps=steps),
        "result.json": json.dumps(result),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return folder


def write_sweep(root, mean, *, grid=(0, 0.05, 0.1), seeds=range(5), noise=0.0, shared=0.0, **keys):
    """A job for each eps and seed. ``mean(eps)`` gives NLL; ``noise`` is of a job, ``shared`` of a seed."""
    generator = random.Random(0)
    common = {seed: generator.gauss(0, shared) for seed in seeds}
    for number, (eps, seed) in enumerate((eps, seed) for eps in grid for seed in seeds):
        nll = mean(eps) + common[seed] + generator.gauss(0, noise)
        test = measured(nll + 0.1)
        write_job(Path(root) / str(number), eps, seed, val=measured(nll), test=test, scaled=measured(nll), **keys)
    return Path(root)


def measured(nll):
    return {"acc": 1 - nll / 5, "nll": nll, "brier": nll / 2, "ece": nll / 10, "gap": -nll / 10, "overconfidence": 0.0}


def bins():
    return {"counts": [0.0, 20.0, 80.0], "confidence": [None, 0.6, 0.95], "accuracy": [None, 0.5, 0.9]}


def risk_coverage(accuracy):
    """Errors among the least sure samples, so many that accuracy is what it is."""
    error = 1 - (accuracy or 1)
    coverage = [k / 100 for k in range(1, 101)]
    risk = [error * share**3 for share in coverage]
    return {"coverage": coverage, "risk": risk, "lower": risk, "upper": risk}


def history(eps, seed, epochs=4, steps=10):
    """metrics.csv: a row a step, validation on the last of an epoch."""
    generator = random.Random(seed)
    lines = ["step,ls/eps,epoch,train/loss,train/acc,val/loss,val/acc"]
    for step in range(epochs * steps):
        loss = 2 / (1 + step / 5) + eps + generator.gauss(0, 0.05)
        end = f"{loss + 0.1},{0.9 - loss / 10}" if step % steps == steps - 1 else ","
        lines.append(f"{step},{eps},{step // steps},{loss},{1 - loss / 9},{end}")
    return "\n".join(lines) + "\n"
