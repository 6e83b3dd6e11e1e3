"""The same jobs on a dask.distributed cluster."""

from __future__ import annotations

from collections.abc import Iterator

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

    def run(self, jobs: list[Job]) -> Iterator[Outcome]:
        """Grade the jobs and yield the outcomes as they come."""
        from distributed import as_completed

        futures = {
            self.client.submit(work, job, key=f"kdgrade-{job.key}", pure=False, retries=2): job
            for job in jobs
        }
        for future in as_completed(list(futures)):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                yield failed(futures[future], f"{type(error).__name__}: {error}")
            future.release()

    def close(self) -> None:
        """Let go of the cluster, which goes on."""
        self.client.close()
