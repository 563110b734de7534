"""The options of ``hydra/launcher=stacked``: those of ``hydra/launcher=process``, which runs what does not fit."""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore

from hydra_plugins.ls_process_launcher.config import ProcessLauncherConf


@dataclass
class StackedLauncherConf(ProcessLauncherConf):
    """``hydra.launcher.n_jobs=2`` divides a stack between two processes."""

    _target_: str = "hydra_plugins.ls_stacked_launcher.stacked_launcher.StackedLauncher"
    gpu: bool = False
    """Whether stacks are trained on a GPU, too, and convolutions there. Not run on one yet."""


ConfigStore.instance().store(group="hydra/launcher", name="stacked", node=StackedLauncherConf, provider="ls_lightning")
