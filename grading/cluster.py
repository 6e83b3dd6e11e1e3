"""The same jobs on a dask.distributed cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from grading.outcome import Job, Outcome, failed
from grading.pool import work


class DaskPool:
    """Hands jobs to the workers of a scheduler; those of a worker that dies go to another.

    Args:
        address: of the scheduler, such as "tcp://10.0.0.1:8786". Each worker needs this package,
            bubblewrap, and one thread (`dask worker --nthreads 1`).
    """

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise SystemExit(
                'kdgrade: --executor dask needs dask: pip install "kdlib[cluster]"'
            ) from None
        self.client = Client(address)

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Grade the jobs and yield the outcomes as they come; only a few jobs wait out there."""
        from distributed import as_completed

        waiting = iter(jobs)
        futures: dict[Any, Job] = {}

        def submit() -> Any:
            job = next(waiting, None)
            if job is None:
                return None
            name = f"kdgrade-{job.student}-{job.key}"
            future = self.client.submit(work, job, key=name, pure=False, retries=2)
            futures[future] = job
            return future

        window = 2 * max(2, len(self.client.scheduler_info()["workers"]))
        first = [future for _ in range(window) if (future := submit())]
        coming = as_completed(first)
        for future in coming:
            job, error = futures.pop(future), future.exception()
            yield (
                future.result()
                if error is None
                else failed(job, f"{type(error).__name__}: {error}")
            )
            future.release()
            if more := submit():
                coming.add(more)

    def close(self) -> None:
        """Let go of the cluster, which goes on."""
        self.client.close()
