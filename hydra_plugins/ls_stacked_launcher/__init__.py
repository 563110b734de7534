"""A Hydra launcher that trains jobs which differ only in numbers as one model, and runs the others as processes.

For ``python -m ls_lightning.train -m``: it reads that program's configuration.
"""
