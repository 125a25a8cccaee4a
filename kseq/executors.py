"""Executors: engines that run tasks, on this host or on others."""

import concurrent.futures
import sys


def as_executor(executor, **options):
    """Returns a `concurrent.futures.Executor` as it is, or that of a client of Dask.

    Args:
        executor: The executor, or a `distributed.Client` that is not asynchronous.
        **options: What the client's `get_executor` is given.

    Raises:
        ValueError: It is neither.

    Example:

    >>> import concurrent.futures
    >>> with concurrent.futures.ThreadPoolExecutor() as threads:
    ...     as_executor(threads) is threads
    True
    """
    if isinstance(executor, concurrent.futures.Executor):
        return executor
    client = getattr(sys.modules.get("distributed"), "Client", ())
    if isinstance(executor, client) and not executor.asynchronous:
        return executor.get_executor(pure=False, **options)
    raise ValueError(
        "`executor` must be None, a `concurrent.futures.Executor`, or a "
        "`distributed.Client` that is not asynchronous. Received: executor="
        f"{executor!r}. Pass distributed.Client(address), or put another engine into "
        "an Executor, of which `submit` alone is used."
    )
