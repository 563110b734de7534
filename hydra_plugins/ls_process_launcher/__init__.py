"""A Hydra launcher that runs each job of a multirun as a plain run of the same program, in a process of its own.

Any Hydra app can use it: ``python app.py -m lr=0.1,0.2 hydra/launcher=process``.
"""
