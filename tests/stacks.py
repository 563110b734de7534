"""Jobs as a sweep would compose them, and what they leave behind."""

import csv
import json
from pathlib import Path

import torch
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ls_lightning.config import register_schema, settle
from ls_lightning.job import run_job
from ls_lightning.stacked.job import StackedJob

COMMON = ["trainer=cpu", "trainer.enable_progress_bar=false", "~callbacks.pictures", "trainer.max_epochs=2"]


def jobs(folder, members, *common):
    """A :class:`StackedJob` for each list of overrides."""
    register_schema()
    found = []
    with initialize_config_module(version_base="1.3", config_module="ls_lightning.conf"):
        for num, own in enumerate(members):
            overrides = [*COMMON, *common, *own.split()]
            cfg = compose("config", overrides=overrides, return_hydra_config=True)
            cfg.hydra.runtime.output_dir = str(folder / str(num))
            HydraConfig.instance().set_config(cfg)
            task = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
            task.name = str(num)
            config = OmegaConf.to_container(settle(task, overrides))
            choices = {key: str(value) for key, value in cfg.hydra.runtime.choices.items()}
            found.append(StackedJob(num, config, str(folder / str(num)), choices))
    return found


def run_alone(job, **changes):
    """The job as it runs without a stack."""
    return run_job(OmegaConf.create({**job.config, **changes}), Path(job.folder), job.choices)


def rows(job):
    with (Path(job.folder) / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def result(job):
    return json.loads((Path(job.folder) / "result.json").read_text())


def config(job):
    return (Path(job.folder) / "config.yaml").read_text().replace(job.folder, "")


def checkpoint(job):
    return torch.load(Path(job.folder) / "checkpoints" / "last.ckpt", weights_only=False)
