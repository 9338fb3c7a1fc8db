"""Retries: requests that were refused temporarily, or lost on the way and are safe to repeat.

wait(n) = min(longest, first * 2^n), or `Retry-After` if that is longer
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.client.calls import Call, NoResponse, Response

TEMPORARY = (429, 502, 503, 504)
"""Statuses that may differ next time; 502 and 504 are from proxies and do not say whether the server acted."""

REFUSED = (429, 503)
"""Statuses that say that the server did nothing."""


@dataclass(frozen=True, kw_only=True)
class Retrying:
    """How often and after which waits requests are retried.

    Args:
        attempts: largest number of attempts; 1 never retries.
        first_wait_s: wait before the second attempt, seconds; it doubles for each further one.
        longest_wait_s: longest wait, seconds; if the server asks for a longer one, the request is not retried.
    """

    attempts: int = 6
    first_wait_s: float = 0.25
    longest_wait_s: float = 20.0

    def wait_s(self, call: Call[object], outcome: Response | NoResponse, failures: int) -> float | None:
        """Returns the seconds until the next attempt, None if there is none.

        Args:
            call: the request.
            outcome: outcome of the last attempt.
            failures: number of failed attempts before it.
        """
        if failures + 1 >= self.attempts or (isinstance(outcome, Response) and outcome.status in call.expected):
            return None
        backoff = self.backoff_s(failures)
        if isinstance(outcome, NoResponse):
            return backoff if call.is_repeatable or not outcome.was_sent else None
        # A proxy's 502 or 504 may hide that the server has acted: only what may happen twice is sent again.
        if outcome.status not in (TEMPORARY if call.is_repeatable else REFUSED):
            return None
        wait_s = max(backoff, outcome.retry_after_s or 0.0)
        # A server that asks for an hour means a quota, not a hiccup: the caller gets the error and decides.
        return wait_s if wait_s <= self.longest_wait_s else None

    def backoff_s(self, failures: int) -> float:
        """Returns the wait after this many failures in a row, if the server does not say."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0**failures)
