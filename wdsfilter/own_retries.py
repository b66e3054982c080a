"""Keeping a store's library from asking again by itself: retries are this package's, for all stores alike.

Both together would multiply, and a store that is down would be waited for by the quarter of an hour. No
library lets its retries be set through fsspec, so each is told in a way of its own.
"""

from __future__ import annotations

from types import MethodType
from typing import Any


def without_retries(store: Any) -> Any:
    """``store``, a file system of fsspec's, which from now on asks once."""
    if "s3" in store.protocol:
        store.retries = 1
    elif "gs" in store.protocol:
        asks = type(store)._request
        store._request = MethodType(getattr(asks, "__wrapped__", asks), store)
    elif "abfs" in store.protocol and hasattr(store.service_client, "_config"):
        policy = store.service_client._config.retry_policy
        policy.total_retries = policy.connect_retries = policy.read_retries = policy.status_retries = 0
    return store


def hub_range(store: Any, path: str, start: int, end: int, timeout: float) -> bytes:
    """A range of a file on the hub, by one request: its file system's own goes on for half a minute each time."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        get_session,
        hf_raise_for_status,
    )

    headers = {**build_hf_headers(token=store.token), "Range": f"bytes={start}-{end - 1}"}
    answer = get_session().get(store.url(path), headers=headers, timeout=timeout)
    hf_raise_for_status(answer)
    return bytes(answer.content)
