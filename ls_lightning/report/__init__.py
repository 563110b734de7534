"""``python -m ls_lightning.report``: folders of jobs -> a table, an answer, figures."""
