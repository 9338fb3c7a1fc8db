"""When a request is sent again: refused for the moment, or lost on the way and safe to repeat.

wait(n) = min(longest, first * 2^n), or what `Retry-After` says if that is longer
"""

from __future__ import annotations

from dataclasses import dataclass

from sphinx_nvs.client.calls import Answer, Call, Lost

TRY_AGAIN = (429, 502, 503, 504)
"""Statuses that may be others the next time; 502 and 504 are of proxies, and tell nothing of what the server did."""

REFUSED = (429, 503)
"""Statuses that say that nothing was done."""


@dataclass(frozen=True, kw_only=True)
class Retrying:
    """How patient a client is.

    Args:
        attempts: how often a request is sent at most; 1 is never again.
        first_wait_s: before the second attempt, seconds; it doubles from then on.
        longest_wait_s: longest wait; a server that asks for a longer one is not waited for.
    """

    attempts: int = 6
    first_wait_s: float = 0.25
    longest_wait_s: float = 20.0

    def wait_s(self, call: Call, outcome: Answer | Lost, failures: int) -> float | None:
        """Seconds until the request is sent again; None if it is not.

        Args:
            call: the request.
            outcome: of the last attempt.
            failures: attempts before this one.
        """
        if failures + 1 >= self.attempts or (isinstance(outcome, Answer) and outcome.status in call.expected):
            return None
        backoff = self.backoff_s(failures)
        if isinstance(outcome, Lost):
            return backoff if call.is_repeatable or not outcome.was_sent else None
        if outcome.status not in (TRY_AGAIN if call.is_repeatable else REFUSED):
            return None
        wait_s = max(backoff, outcome.retry_after_s or 0.0)
        return wait_s if wait_s <= self.longest_wait_s else None

    def backoff_s(self, failures: int) -> float:
        """The wait behind so many failures in a row, where the server says nothing."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0**failures)
