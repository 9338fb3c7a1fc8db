"""The store of jobs: rows first, leases while work lasts, results once, events in order. See docs/server-storage.md.

Every method is one transaction and may be called from any thread. Times are passed in, epoch seconds; no clock is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.store import event_rows as _events
from sphinx_nvs.engine.store import job_rows as _jobs
from sphinx_nvs.engine.store import references as _references
from sphinx_nvs.engine.store import scene_rows as _scenes
from sphinx_nvs.engine.store import unit_rows as _units
from sphinx_nvs.engine.store.database import Database, Listener, Writing
from sphinx_nvs.engine.store.event_rows import Told
from sphinx_nvs.engine.store.folders import sweep_folder
from sphinx_nvs.engine.store.row_codec import digests_in
from sphinx_nvs.engine.store.row_types import Swept
from sphinx_nvs.engine.store.scene_store import Shelf
from sphinx_nvs.engine.store.tables import JOBS
from sphinx_nvs.engine.types.errors import no_scene
from sphinx_nvs.engine.types.jobs import Event, EventKind, JobRow, JobSpec, JobState, Quote, UnitRow
from sphinx_nvs.errors import InputError

GRACE_S = 3600.0
"""How old a file is before it may be swept, seconds: longer than any unit takes between a file and its row."""


class JobStore(Shelf):
    """Jobs, units and events, with `Shelf`'s scenes and keys, for good; made by `open`."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore | None, scenes_folder: Path | None, grace_s: float | int
    ) -> None:
        super().__init__(database, artifacts, scenes_folder)
        self._grace_s, self._looked_s = grace_s, -math.inf

    @classmethod
    def open(
        cls,
        url_or_path: str | Path,
        *,
        artifacts: ArtifactStore | None = None,
        scenes_folder: Path | None = None,
        grace_s: float | int = GRACE_S,
        exclusive: bool = False,
    ) -> JobStore:
        """A store, its tables made or upgraded.

        Args:
            url_or_path: path of a SQLite file, or a URL such as `postgresql+psycopg://USER@HOST/NAME`.
            artifacts: the files that results refer to, measured for quotas and swept; None leaves them alone.
            scenes_folder: the folder in which scenes lie, swept of what no scene's path is in; None leaves it alone.
            grace_s: files younger than this are never swept, seconds.
            exclusive: whether it is claimed for the one engine that may work on it, until `close` or the process's end.
                Who only makes keys or looks opens it without, beside a running engine.

        Raises:
            InputError: it cannot be opened, another engine claimed it, or its tables are newer than this package.
        """
        return cls(Database(url_or_path, exclusive=exclusive), artifacts, scenes_folder, grace_s)

    def close(self) -> None:
        """Lets go of the database."""
        self._database.close()

    def subscribe(self, callback: Listener) -> Callable[[], None]:
        """Has `callback(event)` called for each new event of this process, after its commit, on the writer's thread.

        Returns:
            What ends it.
        """
        return self._database.subscribe(callback)

    # Jobs -----------------------------------------------------------------------------------------------------------

    def create_job(
        self,
        spec: JobSpec,
        *,
        key_id: str,
        units: Sequence[UnitRow],
        quote: Quote | None,
        idempotency_key: str | None,
        expires_s: float | int | None,
        now: float | int,
        needs_scene: bool = False,
    ) -> tuple[JobRow, bool]:
        """Writes a job, its units and its `queued` event, all or nothing.

        The event's data are `position`, how many unfinished jobs are before it, and the `quote`.

        Args:
            spec: what is asked for.
            key_id: of the API key that asks, or "anonymous".
            units: known so far; the job that they name themselves does not matter.
            quote: told to the user.
            idempotency_key: of the request; the same one of the same API key gives the same job again.
            expires_s: when rows and files go; None is never.
            now: of acceptance.
            needs_scene: whether its scene must have a row, which then stays until the job has ended.

        Returns:
            The job, and whether it is new.

        Raises:
            MissingError: there is no such scene (any more).
            InputError: the idempotency key was used for another request.
        """
        asked = {"key_id": key_id, "quote": quote, "idempotency_key": idempotency_key, "expires_s": expires_s}
        try:
            return self._create_job(spec, units, now, asked, needs_scene)
        except IntegrityError:
            # Another process wrote the same request between our look and our row.
            return self._create_job(spec, units, now, asked, needs_scene)

    def _create_job(
        self, spec: JobSpec, units: Sequence[UnitRow], now: float | int, asked: dict[str, Any], needs_scene: bool
    ) -> tuple[JobRow, bool]:
        with self._database.writing() as writing:
            same = _jobs.find_same_request(writing.conn, asked["key_id"], asked["idempotency_key"], spec)
            if same is not None:
                return same, False
            if needs_scene and not _scenes.lock_scene(writing.conn, spec.scene):
                raise no_scene(spec.scene)
            position = _jobs.count_unfinished(writing.conn)
            job = _jobs.insert_job(writing.conn, spec, now=now, **asked)
            _units.add_units(writing.conn, job.id, units)
            data = {"position": position, "quote": None if job.quote is None else asdict(job.quote)}
            _events.add_events(writing, job.id, [(EventKind.QUEUED, data)], now)
            return job, True

    def same_request(self, spec: JobSpec, *, key_id: str, idempotency_key: str | None) -> JobRow | None:
        """The job that `create_job` would give again; None if it would make a new one.

        Raises:
            InputError: the idempotency key was used for another request.
        """
        with self._database.reading() as conn:
            return _jobs.find_same_request(conn, key_id, idempotency_key, spec)

    def job(self, job_id: str) -> JobRow | None:
        """A job; None if there is none (any more)."""
        with self._database.reading() as conn:
            return _jobs.read_job(conn, job_id)

    def list_jobs(
        self,
        *,
        key_id: str | None = None,
        state: JobState | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[JobRow]:
        """Jobs, newest first.

        Args:
            key_id: of whom; None for everybody's.
            state: how far they are; None for any.
            limit: most that come back.
            before: id of the last job of the page before; pages stay as they are when jobs are added.

        Raises:
            InputError: there is no job `before`.
        """
        with self._database.reading() as conn:
            return _jobs.list_jobs(conn, key_id=key_id, state=state, limit=limit, before=before)

    def unfinished_jobs(self) -> list[JobRow]:
        """Jobs for which something can still happen, in order of acceptance."""
        with self._database.reading() as conn:
            return _jobs.read_unfinished_jobs(conn)

    def set_state(
        self,
        job_id: str,
        state: JobState,
        *,
        now: float | int,
        level: str | None = None,
        quality: float | int | None = None,
        reason: str | None = None,
        events: Told = (),
    ) -> JobRow | None:
        """Writes how far a job is, with the events that tell it; what is None stays as it is.

        A final state frees the job's leases, and nothing changes or is told after it.

        Returns:
            The job; None if its state was final before, or there is none: then nothing was written.
        """
        with self._database.writing() as writing:
            if _jobs.read_unfinished(writing.conn, job_id) is None:
                return None
            given = {"level": level, "quality": quality, "reason": reason}
            changes = {name: value for name, value in given.items() if value is not None}
            changes |= {"state": state.value} | ({"finished_s": float(now)} if state.is_final else {})
            job = _jobs.update_job(writing.conn, job_id, changes)
            if state.is_final:
                _units.release_job(writing.conn, job_id)
            _events.add_events(writing, job_id, events, now)
            return job

    def set_video(self, job_id: str, video: str) -> None:
        """Keeps the artifact that is a finished job's video; nothing is kept of others, whose frames may get better."""
        sizes = self._sizes([video])
        with self._database.writing() as writing:
            job = _jobs.read_job(writing.conn, job_id, locked=True)
            if job is not None and job.state.is_final:
                _jobs.update_job(writing.conn, job_id, {"video": video})
                _references.hold(writing.conn, _references.JOB, job_id, sizes)

    def delete_job(self, job_id: str, *, now: float | int) -> JobRow | None:
        """Removes a finished job: rows and files, but for files that something else refers to or may be about to.

        Returns:
            The job as it was; None if there is none, or it is unfinished: then nothing was removed.
        """
        with self._database.writing() as writing:
            job = _jobs.read_job(writing.conn, job_id, locked=True)
            if job is None or not job.state.is_final:
                return None
            _, freed = _references.delete_jobs(writing.conn, JOBS.c.id == job_id, now)
        self._drop(freed)
        return job

    # Units ----------------------------------------------------------------------------------------------------------

    def units(self, job_id: str) -> list[UnitRow]:
        """A job's units by index; none if there is no such job."""
        with self._database.reading() as conn:
            return _units.read_units(conn, job_id)

    def add_units(self, job_id: str, units: Sequence[UnitRow]) -> None:
        """Adds units to an unfinished job; those whose index it has already stay as they are."""
        with self._database.writing() as writing:
            if _jobs.read_unfinished(writing.conn, job_id) is not None:
                _units.add_units(writing.conn, job_id, units)

    def lease_unit(
        self, job_id: str, index: int, *, owner: str, until_s: float | int, now: float | int
    ) -> UnitRow | None:
        """Gives a unit to an owner and counts the attempt.

        Returns:
            The unit; None if it is done, poison, or another's whose lease has not run out, or if its job is final.
        """
        with self._database.writing() as writing:
            return _units.lease(writing.conn, job_id, index, owner, until_s, now)

    def renew(self, owner: str, until_s: float | int, *, now: float | int) -> int:
        """Prolongs an owner's leases that have not run out; how many."""
        with self._database.writing() as writing:
            return _units.renew(writing.conn, owner, until_s, now)

    def give_up_unit(
        self, job_id: str, index: int, *, owner: str, error: str, most_attempts: int | None, now: float | int
    ) -> UnitRow:
        """Ends an attempt: the unit waits again, or is poison if it was leased `most_attempts` times.

        None gives the attempt back, for what was not the unit's fault.

        Returns:
            The unit as it is now, unchanged if it is not the owner's any more.

        Raises:
            InputError: there is no such unit.
        """
        with self._database.writing() as writing:
            _units.give_up(writing.conn, job_id, index, owner, error, most_attempts)
            found = [unit for unit in _units.read_units(writing.conn, job_id) if unit.index == index]
        if not found:
            raise InputError(f"unit {index}", f"job {job_id!r} has none of that index", "ask for the job's units")
        return found[0]

    def finish_unit(
        self,
        job_id: str,
        index: int,
        *,
        owner: str,
        result: dict[str, Any],
        events: Told = (),
        quality: float | None = None,
        now: float | int,
    ) -> JobRow | None:
        """Stores what a unit made, with the events that tell it and references to every artifact that `result` names.

        Args:
            job_id: whose unit it is.
            index: of the unit.
            owner: of its lease.
            result: what it made, JSON values.
            events: told with it.
            quality: of the whole job, which this unit completes; None if there are more to come.
            now: epoch seconds.

        Returns:
            The job; None if the unit is not the owner's any more or the job is final: then nothing was written.
        """
        sizes = self._sizes(digests_in(result))
        with self._database.writing() as writing:
            if not _finished(writing, job_id, index, owner, result, sizes):
                return None
            job = _jobs.complete_job(writing.conn, job_id, quality, now)
            _events.add_events(writing, job_id, events, now)
            return job

    def finish_preview(
        self,
        job_id: str,
        index: int,
        *,
        owner: str,
        result: dict[str, Any],
        units: Sequence[UnitRow],
        events: Told = (),
        now: float | int,
    ) -> JobRow | None:
        """Stores a preview, as `finish_unit` does, and what comes after it: the job is previewed, its units are known.

        Returns:
            The job; None if the unit is not the owner's any more or the job is final: then nothing was written.
        """
        sizes = self._sizes(digests_in(result))
        with self._database.writing() as writing:
            if not _finished(writing, job_id, index, owner, result, sizes):
                return None
            job = _jobs.update_job(writing.conn, job_id, {"state": JobState.PREVIEWED.value, "level": "preview"})
            _units.add_units(writing.conn, job_id, units)
            _events.add_events(writing, job_id, events, now)
            return job

    def release(self, owner: str, *, now: float | int, most_attempts: int | None = None) -> list[UnitRow]:
        """Lets go of all of an owner's units, when it starts anew or closes; they wait again.

        Args:
            owner: whose leases end.
            now: epoch seconds.
            most_attempts: None gives the attempts back, since the end of a server is not its units' fault. A number
                counts them: a unit that was leased as often as this is poison.

        Returns:
            The units as they are now.
        """
        with self._database.writing() as writing:
            return _units.release(writing.conn, owner, most_attempts)

    def expire_leases(self, now: float | int, most_attempts: int) -> list[UnitRow]:
        """Takes back units whose leases ran out; they wait again, or are poison if leased `most_attempts` times."""
        with self._database.writing() as writing:
            return _units.expire(writing.conn, now, most_attempts)

    # Events ---------------------------------------------------------------------------------------------------------

    def add_events(self, job_id: str, events: Told, *, now: float | int) -> list[Event]:
        """Adds events of an unfinished job, in order; none are added after its end."""
        with self._database.writing() as writing:
            if _jobs.read_unfinished(writing.conn, job_id) is None:
                return []
            return _events.add_events(writing, job_id, events, now)

    def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        """A job's events behind number `after`, in order."""
        with self._database.reading() as conn:
            return _events.read_events(conn, job_id, after, limit)

    # Expiry ---------------------------------------------------------------------------------------------------------

    def sweep(self, now: float | int, needed: Collection[str] = ()) -> Swept:
        """Ends jobs whose time is over, and removes what was over before: rows and files together.

        A job that this sweep ends keeps its rows until the next one, so that its listeners learn of it. Scenes stay
        while an unfinished job needs them. What no row refers to, and what was put again meanwhile, is looked for once
        in a grace period, and goes if it is older than that.

        Args:
            now: epoch seconds.
            needed: artifacts that stay though no row refers to them yet.
        """
        with self._database.writing() as writing:
            expired = _references.expire_jobs(writing, now)
        with self._database.writing() as writing:
            jobs, freed = _references.delete_expired_jobs(writing.conn, now)
            scenes = _references.delete_expired_scenes(writing.conn, now)
        # Rows first: a crash in between leaves files without rows, which are found by and by.
        files = self._drop(freed)
        for path in scenes.values():
            self._remove_folder(path)
        if now - self._looked_s >= self._grace_s:
            self._looked_s = now
            files += self._sweep_files(now, needed)
        return Swept(expired=tuple(expired), jobs=tuple(jobs), scenes=tuple(scenes), files=tuple(files))

    def _drop(self, freed: Mapping[str, float]) -> list[str]:
        """Removes artifacts that rows have just ceased to refer to; names of the files that went."""
        return [] if self._artifacts is None else self._artifacts.drop(freed)

    def _sweep_files(self, now: float | int, needed: Collection[str]) -> list[str]:
        """Removes what no row refers to and nobody needs; its names."""
        with self._database.reading() as conn:
            digests, paths = _references.held_digests(conn), _references.scene_paths(conn)
        gone = []
        if self._artifacts is not None:
            gone += self._artifacts.sweep(digests.union(needed), now=now, grace_s=self._grace_s)
        if self._scenes_folder is not None:
            gone += sweep_folder(self._scenes_folder, paths, now=now, grace_s=self._grace_s)
        return gone


def _finished(
    writing: Writing, job_id: str, index: int, owner: str, result: dict[str, Any], sizes: Mapping[str, int]
) -> bool:
    """Writes what a unit made, if it is its owner's."""
    # The job is locked first, as everywhere, so that nobody ends it in between.
    if _jobs.read_unfinished(writing.conn, job_id) is None:
        return False
    if not _units.finish(writing.conn, job_id, index, owner, result):
        return False
    _references.hold(writing.conn, _references.JOB, job_id, sizes)
    return True
