"""The other engine: Dask, with workers on this computer, of a scheduler that runs already, or in jobs of Slurm.

It needs the extra `dask`. The workers must see this folder and the cache under the same paths.
"""

import contextlib
import logging
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_utils.engines import Item, Result

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client

PATIENCE = 600  # seconds without any worker
OPTIONS = {"cores": "job_cpu", "memory": "memory", "queue": "queue", "account": "account", "walltime": "walltime"}


def in_dask(
    work: Callable[[Item], Result], items: Iterable[Item], client: "Client"
) -> Iterator[tuple[Item, Result | None]]:
    """An engine: nobody waits beside a run that may kill its host, and what did so is tried once more."""
    from distributed import KilledWorker
    from distributed import wait as wait_for

    left, running, met = iter(items), {}, time.monotonic()
    while True:
        threads = sum(client.nthreads().values())
        met = time.monotonic() if threads else met
        if time.monotonic() - met > PATIENCE:
            raise OSError(
                "all workers have been gone for ten minutes: what is finished is kept, give the command again"
            )
        free = max(1, threads) - len(running)
        running |= {client.submit(work, item, pure=False): item for _, item in zip(range(free), left)}  # noqa: B905
        if not running:
            return
        with contextlib.suppress(TimeoutError):  # look again: a new worker may have come
            wait_for(list(running), timeout=2, return_when="FIRST_COMPLETED")
        for future in [future for future in running if future.done()]:
            item = running.pop(future)
            killed = future.status == "error" and isinstance(future.exception(), KilledWorker)
            yield item, None if killed else future.result()


@contextlib.contextmanager
def dask_client(workers: int, address: str, slurm: str | None, seen: list[Path]) -> "Generator[Client]":
    """A client of the scheduler at `address`, or of a new one; its workers must see these files and folders."""
    import dask
    from distributed import Client

    settings = {"distributed.scheduler.allowed-failures": 1, "distributed.deploy.lost-worker-timeout": "1 hour"}
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        new = None if address else local(workers) if slurm is None else jobs(workers, slurm, seen[-1])
        place: Any = stack.enter_context(new) if new else address
        try:
            client = stack.enter_context(Client(place, timeout=10))
        except OSError as error:
            raise OSError(f"nobody answers at {address}: is the scheduler running, and is that its address?") from error
        client.wait_for_workers(1)
        refuse_blind(client, seen)
        yield client


def refuse_blind(client: "Client", seen: list[Path]) -> None:
    """Raise an OSError if a worker does not see one of these."""
    for path in seen:
        for worker, found in client.run(os.path.exists, str(path)).items():
            if not found:
                raise OSError(f"worker {worker} does not see {path}: it must lie under that path on both sides")


def local(workers: int) -> Any:
    """Workers on this computer, of one thread each; whoever dies is replaced."""
    from distributed import LocalCluster

    quiet = {"dashboard_address": None, "silence_logs": logging.CRITICAL, "memory_limit": 0}
    return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", **quiet)


def jobs(workers: int, slurm: str, folder: Path) -> "SLURMCluster":
    """Workers in jobs of Slurm, one thread and one run at a time in each; `slurm` is like `queue=debug,memory=2GB`."""
    from dask_jobqueue import SLURMCluster

    if not shutil.which("sbatch"):
        raise OSError("this computer has no sbatch: --slurm works where you can submit jobs to Slurm")
    logs = folder / "slurm"
    logs.mkdir(exist_ok=True)
    words = dict(word.split("=", 1) for word in slurm.split(",") if word)
    interface = words.pop("interface", None)
    options: dict[str, Any] = {"memory": "4GB"} | {OPTIONS[name]: value for name, value in words.items()}
    cluster = SLURMCluster(
        cores=1, processes=1, python=shlex.quote(sys.executable), interface=interface,
        job_extra_directives=[f'--output="{logs}/slurm-%j.log"'], silence_logs=logging.CRITICAL,
        scheduler_options={"dashboard_address": None}, **options,
    )  # fmt: skip
    cluster.scale(workers)
    return cluster
