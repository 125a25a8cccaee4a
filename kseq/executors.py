"""Executors, which run tasks on this host or on others."""

import concurrent.futures
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import distributed


def as_executor(
    executor: "concurrent.futures.Executor | distributed.Client", **options: Any
) -> concurrent.futures.Executor:
    """Return a `concurrent.futures.Executor` as it is, or that of a Dask client.

    Args:
        executor: The executor, or a `distributed.Client` that is not asynchronous.
        **options: Options of the client's `get_executor`.

    Returns:
        A `concurrent.futures.Executor`.

    Raises:
        ValueError: `executor` is neither of them.

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
        f"{executor!r}. Pass distributed.Client(address), or wrap another engine in an "
        "Executor with a method `submit`."
    )
