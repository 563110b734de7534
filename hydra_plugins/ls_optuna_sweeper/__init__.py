"""A Hydra sweeper that searches with optuna, goes on after an interruption, and leaves a folder per trial.

Any Hydra app can use it: ``python app.py -m 'lr=tag(log,interval(1e-4,1e-1))' hydra/sweeper=ls_optuna``.
"""
