"""One job: fit, measure, write the result."""

from ls_lightning.job.result import job_result
from ls_lightning.job.run import quieten, run_job

__all__ = ["job_result", "quieten", "run_job"]
