"""Experiments with a grid of their own."""

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra

from ls_lightning.config import register_schema


@pytest.mark.parametrize(
    ("typed", "launcher"),
    [
        ([], "process"),
        (["experiment=binary"], "stacked"),
        (["experiment=sequence"], "process"),
        (["experiment=binary", "hydra/launcher=basic"], "basic"),
    ],
)
def test_an_experiment_chooses_the_launcher_and_the_user_has_the_last_word(typed, launcher):
    GlobalHydra.instance().clear()
    register_schema()
    with initialize_config_module("ls_lightning.conf", version_base="1.3"):
        cfg = compose("config", overrides=typed, return_hydra_config=True)
    assert cfg.hydra.runtime.choices["hydra/launcher"] == launcher
