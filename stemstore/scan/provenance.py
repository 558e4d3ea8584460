"""An entry of a history: what was done, when, with which software, where and by whom."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

from stemstore.config import agent

if TYPE_CHECKING:
    from stemstore_schemas import HistoryEntry

PACKAGES = ("stemstore", "numpy", "zarr", "numcodecs", "numba")
"""What makes pixels and writes them, besides Python."""

JOB = {"slurm_job": "SLURM_JOB_ID", "slurm_array_job": "SLURM_ARRAY_JOB_ID", "slurm_array_task": "SLURM_ARRAY_TASK_ID"}
"""By which environment variables a scheduler tells a job its number."""


def history_entry(
    operation: str, parameters: dict[str, Any], *, packages: tuple[str, ...] = PACKAGES, **more: Any
) -> HistoryEntry:
    """Compose an entry for something that is done now, by this process.

    Parameters
    ----------
    operation, parameters
        What is done, and how; all parameters after defaults.
    packages
        Distributions whose versions matter.
    **more
        Further fields of `stemstore_schemas.HistoryEntry`; `environment` is added to what is known of the process, and
        `time` is now unless it is given.

    Returns
    -------
    entry
        With the versions of Python and of the packages, the operating system, the class of the machine, the number of
        the job where Slurm runs it, and the person or ORCID that ``STEMSTORE_AGENT`` names.
    """
    from stemstore_schemas import HistoryEntry

    jobs = {name: os.environ[variable] for name, variable in JOB.items() if variable in os.environ}
    fields: dict[str, Any] = {
        "software": {name: _version(name) for name in packages} | {"python": platform.python_version()},
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "host": platform.machine(),
        "agent": agent(),
        **more,
        "environment": {"platform": platform.system(), **jobs, **more.get("environment", {})},
    }
    return HistoryEntry(operation=operation, parameters=parameters, **fields)


@cache
def _version(package: str) -> str:
    return metadata.version(package)
