"""Deprecated method names of both clients, kept for one release."""

from __future__ import annotations

import warnings
from typing import Any


class DeprecatedNames:
    """Methods under their names in version 1 of the API, where a job was called a view."""

    def create_view(self, *args: Any, **options: Any) -> Any:
        """Use `create_job`."""
        return self._renamed("create_view", "create_job")(*args, **options)

    def view(self, *args: Any) -> Any:
        """Use `job`."""
        return self._renamed("view", "job")(*args)

    def views(self) -> Any:
        """Use `jobs`."""
        return self._renamed("views", "jobs")()

    def delete_view(self, *args: Any) -> Any:
        """Use `delete_job`."""
        return self._renamed("delete_view", "delete_job")(*args)

    def plan_picture(self, *args: Any, **options: Any) -> Any:
        """Use `plan_image`."""
        return self._renamed("plan_picture", "plan_image")(*args, **options)

    def _renamed(self, old: str, new: str) -> Any:
        """Returns the method with the new name; warns the caller."""
        warnings.warn(f"{old} is deprecated; use {new}", DeprecationWarning, stacklevel=3)
        return getattr(self, new)
