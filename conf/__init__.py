"""The Hydra config groups of ls_lightning."""
