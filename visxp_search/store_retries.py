"""Requests to a Qdrant server sent again when the network or the server fails for a while.

Every request that a store makes can be repeated: points are written by id, deleted by filter. So whatever may pass (a
connection cut, a time limit, a status of 500 and above) is tried again after a pause that doubles; what will not pass
(a status of 400 to 499, an answer that is not understood) is an error at once. A server that never answered yet is not
waited for: then the URL is wrong, or nothing runs there.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
from qdrant_client.http.exceptions import ResponseHandlingException

LOWEST_FAULT_STATUS = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetryPolicy:
    """How long a server is waited for.

    Attributes:
        first_pause_seconds: before the second try; each further pause is twice as long, and a random share shorter.
        longest_pause_seconds: no pause is longer.
        total_seconds: no try begins later than this after the first.
    """

    first_pause_seconds: float = 0.5
    longest_pause_seconds: float = 15.0
    total_seconds: float = 180.0


class ServerFaultError(Exception):
    """A request failed until the time was over; says how often, how long and how at last."""


class Retries:
    """Sends requests again; a middleware of the client's REST interface.

    Args:
        policy: how long a server is waited for.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._has_answered = False

    def __call__(self, request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]) -> httpx.Response:
        """The response to a request; one that says 4xx too.

        Raises:
            ResponseHandlingException: If no try was answered in time.
        """
        began, pause, tries = time.monotonic(), self._policy.first_pause_seconds, 0
        while True:
            tries += 1
            response, fault = self._try(request, send)
            if response is not None:
                return response
            waited = time.monotonic() - began
            if waited + pause > self._policy.total_seconds:
                last = ServerFaultError(f"{fault}; tried {tries} times in {waited:.0f} s")
                raise ResponseHandlingException(last)
            logger.warning("%s %s: %s; trying again in %.1f s", request.method, request.url.path, fault, pause)
            time.sleep(pause * random.uniform(0.75, 1))
            pause = min(2 * pause, self._policy.longest_pause_seconds)

    def _try(
        self, request: httpx.Request, send: Callable[[httpx.Request], httpx.Response]
    ) -> tuple[httpx.Response | None, str]:
        """The response, or None and what went wrong for now."""
        try:
            response = send(request)
        except ResponseHandlingException as exc:
            passes = isinstance(exc.source, httpx.TransportError)
            if not passes or (isinstance(exc.source, httpx.ConnectError) and not self._has_answered):
                raise
            return None, f"{type(exc.source).__name__}: {exc.source}"
        self._has_answered = True
        if response.status_code >= LOWEST_FAULT_STATUS:
            return None, f"status {response.status_code}: {response.text[:200]}"
        return response, ""
