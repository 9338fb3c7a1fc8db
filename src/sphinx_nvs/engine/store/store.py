"""The store of jobs: rows before work, results once, events in order. See docs/explanation/durability.md.

Every method is one transaction and may be called from any thread. Times are passed in, epoch seconds; no clock is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.store import event_rows as _events
from sphinx_nvs.engine.store import job_rows as _jobs
from sphinx_nvs.engine.store import references as _references
from sphinx_nvs.engine.store import scene_rows as _scenes
from sphinx_nvs.engine.store import share_rows as _shares
from sphinx_nvs.engine.store import unit_rows as _units
from sphinx_nvs.engine.store.database import Database, Listener, Writing
from sphinx_nvs.engine.store.event_rows import NewEvents
from sphinx_nvs.engine.store.folders import sweep_folder
from sphinx_nvs.engine.store.row_codec import digests_in
from sphinx_nvs.engine.store.row_types import Swept
from sphinx_nvs.engine.store.scene_store import SceneStore
from sphinx_nvs.engine.store.tables import JOBS
from sphinx_nvs.engine.types.engine_errors import no_scene
from sphinx_nvs.engine.types.jobs import Event, EventKind, JobRow, JobSpec, JobState, Quote, UnitRow
from sphinx_nvs.engine.types.transitions import JobEvent, UnitEvent, failure
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject

GRACE_S = 3600.0
"""How old a file is before it may be swept, seconds: longer than any unit takes between a file and its row."""


class JobStore(SceneStore):
    """Durable jobs, units and events, with `SceneStore`'s scenes and keys; created by `open`."""

    def __init__(
        self, database: Database, artifacts: ArtifactStore | None, scenes_folder: Path | None, grace_s: float | int
    ) -> None:
        super().__init__(database, artifacts, scenes_folder)
        self._grace_s, self._swept_s = grace_s, -math.inf

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
        """A store, its tables created or upgraded.

        Args:
            url_or_path: path of a SQLite file, or a URL such as `postgresql+psycopg://USER@HOST/NAME`.
            artifacts: the files that results refer to, measured for quotas and swept; None leaves them alone.
            scenes_folder: the folder of scenes, swept of entries without a row; None leaves it alone.
            grace_s: files younger than this are never swept, seconds.
            exclusive: whether it is claimed for the one engine that may work on it, until `close` or the process's end.
                A process that only reads or creates keys opens it without, beside a running engine.

        Raises:
            InputError: it cannot be opened, another engine claimed it, or its tables are newer than this package.
        """
        return cls(Database(url_or_path, exclusive=exclusive), artifacts, scenes_folder, grace_s)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def check(self) -> None:
        """Raises an error, see `Database.writing`, if nothing can be written; writes nothing."""
        with self._database.writing():
            pass

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
            spec: the request.
            key_id: the API key of the request, or "anonymous".
            units: the units known until now; their own `job_id` is ignored.
            quote: the quote for the user.
            idempotency_key: idempotency key of the request; the same one of the same API key returns the same job.
            expires_s: when rows and files go; None is never.
            now: time of acceptance, epoch seconds.
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
            # Another process wrote the same request between our query and our row.
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
        """The job that `create_job` would return for an identical request; None if it would create a new one.

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
            key_id: the API key whose jobs are listed; None for those of all keys.
            state: state of the listed jobs; None for any.
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

    def record(
        self,
        job_id: str,
        event: JobEvent,
        *,
        now: float | int,
        quality: float | int | None = None,
        reason: str | None = None,
        events: NewEvents = (),
    ) -> JobRow | None:
        """Has an event happen to a job: the state that follows, its effects and the events are written at once.

        Args:
            job_id: the job.
            event: what happens to it; `types.transitions` says what follows.
            now: epoch seconds.
            quality: predicted quality of the job; None leaves it as it is.
            reason: why the job ends; None leaves it as it is.
            events: events for the job's stream.

        Returns:
            The job as it is now; None if there is none or the event means nothing in its state: nothing is written.
        """
        with self._database.writing() as writing:
            job = _jobs.apply(writing.conn, job_id, event, now=now, quality=quality, reason=reason)
            if job is not None:
                _events.add_events(writing, job_id, events, now)
            return job

    def set_video(self, job_id: str, video: str) -> None:
        """Stores the artifact of a finished job's video; an unfinished job's frames may still get better."""
        # Measured before the transaction: an object store answers in tens of milliseconds, and writers wait for each
        # other.
        sizes = self._sizes([video])
        with self._database.writing() as writing:
            job = _jobs.read_job(writing.conn, job_id, locked=True)
            if job is not None and job.state.is_final:
                _jobs.update_job(writing.conn, job_id, {"video": video})
                _references.add_references(writing.conn, _references.JOB, job_id, sizes)

    def share_job(self, job_id: str, *, now: float | int) -> str | None:
        """Makes a link to a job's video, in place of an earlier one; its token, None if there is no such job."""
        with self._database.writing() as writing:
            if _jobs.read_job(writing.conn, job_id, locked=True) is None:
                return None
            return _shares.replace_share(writing.conn, job_id, now)

    def unshare_job(self, job_id: str) -> None:
        """Ends the link to a job's video, if there is one."""
        with self._database.writing() as writing:
            _shares.delete_share(writing.conn, job_id)

    def shared_job(self, token: str) -> JobRow | None:
        """The job that a link is for; None if there is none (any more)."""
        with self._database.reading() as conn:
            job_id = _shares.find_shared(conn, token)
            return None if job_id is None else _jobs.read_job(conn, job_id)

    def delete_job(self, job_id: str, *, now: float | int, file_lag_s: float | int = 0.0) -> JobRow | None:
        """Removes a finished job: rows and files, but for files that something else refers to or may be about to.

        Args:
            job_id: the job.
            now: epoch seconds.
            file_lag_s: how far the clock that dates files is ahead of `now`'s, seconds.

        Returns:
            The job as it was; None if there is none, or it is unfinished: then nothing was removed.
        """
        with self._database.writing() as writing:
            job = _jobs.read_job(writing.conn, job_id, locked=True)
            if job is None or not job.state.is_final:
                return None
            _, freed = _references.delete_jobs(writing.conn, JOBS.c.id == job_id, now)
        self._drop(freed, file_lag_s)
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

    def start_unit(self, job_id: str, index: int) -> UnitRow | None:
        """Marks a unit as running and counts the attempt.

        Returns:
            The unit; None if it is done or poison, or if its job has ended.
        """
        with self._database.writing() as writing:
            # The job is locked first, as everywhere, so that it does not end in between.
            if _jobs.read_unfinished(writing.conn, job_id) is None:
                return None
            started = _units.apply(writing.conn, _units.is_unit(job_id, index), UnitEvent.STARTED)
            return started[0] if started else None

    def give_up_unit(self, job_id: str, index: int, *, error: str, most_attempts: int | None) -> UnitRow:
        """Ends a running unit's attempt: the unit waits again, or is poison after its last attempt.

        Args:
            job_id: the unit's job.
            index: the unit's index.
            error: sentence for the user.
            most_attempts: number of attempts after which the unit is poison; None does not count this attempt.

        Returns:
            The unit as it is now, unchanged if it is not running.

        Raises:
            InputError: there is no such unit.
        """
        with self._database.writing() as writing:
            unit = _units.read_unit(writing.conn, job_id, index)
            if unit is None:
                raise InputError(f"unit {index}", f"job {job_id!r} has none of that index", "request the job's units")
            event = failure(unit.attempt, most_attempts)
            changed = _units.apply(writing.conn, _units.is_unit(job_id, index), event, error=error)
            return changed[0] if changed else unit

    def finish_unit(
        self,
        job_id: str,
        index: int,
        *,
        result: JSONObject,
        events: NewEvents = (),
        quality: float | None = None,
        now: float | int,
    ) -> JobRow | None:
        """Stores a unit's result with its events, and references to every artifact that `result` names.

        Args:
            job_id: the unit's job.
            index: the unit's index.
            result: JSON values.
            events: events that are published with it.
            quality: quality of the whole job if this unit completes it; None if other units are unfinished.
            now: epoch seconds.

        Returns:
            The job; None if the unit is not running or the job has ended: nothing is written.
        """
        sizes = self._sizes(digests_in(result))
        with self._database.writing() as writing:
            if not _finish(writing, job_id, index, result, sizes):
                return None
            if quality is None:
                job = _jobs.read_job(writing.conn, job_id)
            else:
                job = _jobs.apply(writing.conn, job_id, JobEvent.REFINED, now=now, quality=quality)
            _events.add_events(writing, job_id, events, now)
            return job

    def finish_preview(
        self,
        job_id: str,
        index: int,
        *,
        result: JSONObject,
        units: Sequence[UnitRow],
        events: NewEvents = (),
        now: float | int,
    ) -> JobRow | None:
        """Stores a preview, as `finish_unit` does, and what comes after it: the job is previewed, its units are known.

        Returns:
            The job; None if the unit is not running or the job has ended: nothing is written.
        """
        sizes = self._sizes(digests_in(result))
        with self._database.writing() as writing:
            if not _finish(writing, job_id, index, result, sizes):
                return None
            job = _jobs.apply(writing.conn, job_id, JobEvent.PREVIEWED, now=now)
            _units.add_units(writing.conn, job_id, units)
            _events.add_events(writing, job_id, events, now)
            return job

    def release_units(self) -> list[UnitRow]:
        """Has all running units wait again, when the engine starts or closes; these attempts do not count.

        Returns:
            The units as they are now.
        """
        with self._database.writing() as writing:
            return _units.apply(writing.conn, sa.true(), UnitEvent.RETURNED)

    # Events ---------------------------------------------------------------------------------------------------------

    def add_events(self, job_id: str, events: NewEvents, *, now: float | int) -> list[Event]:
        """Adds events of an unfinished job, in order; none are added after its end."""
        with self._database.writing() as writing:
            if _jobs.read_unfinished(writing.conn, job_id) is None:
                return []
            return _events.add_events(writing, job_id, events, now)

    def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> list[Event]:
        """A job's events after number `after`, in order."""
        with self._database.reading() as conn:
            return _events.read_events(conn, job_id, after, limit)

    # Expiry ---------------------------------------------------------------------------------------------------------

    def sweep(self, now: float | int, needed: Collection[str] = (), *, file_lag_s: float | int = 0.0) -> Swept:
        """Ends jobs whose time is over, and removes what was over before: rows and files together.

        A job that this sweep ends keeps its rows until the next one, so that its listeners read its end. Scenes stay
        while an unfinished job needs them. Files without a row, and files that were put again, are searched once
        in a grace period, and removed if they are older than that.

        Args:
            now: epoch seconds.
            needed: artifacts that stay though no row refers to them yet.
            file_lag_s: how far the clock that dates files is ahead of `now`'s, seconds.
        """
        with self._database.writing() as writing:
            expired = _references.expire_jobs(writing, now)
        with self._database.writing() as writing:
            jobs, freed = _references.delete_expired_jobs(writing.conn, now)
            scenes = _references.delete_expired_scenes(writing.conn, now)
        # Rows first: a crash in between leaves files without rows, which a later sweep finds.
        files = self._drop(freed, file_lag_s)
        for path in scenes.values():
            self._remove_folder(path)
        if now - self._swept_s >= self._grace_s:
            self._swept_s = now
            files += self._sweep_files(now + file_lag_s, needed)
        return Swept(expired=tuple(expired), jobs=tuple(jobs), scenes=tuple(scenes), files=tuple(files))

    def _drop(self, freed: Mapping[str, float], file_lag_s: float | int) -> list[str]:
        """Removes artifacts that rows have just ceased to refer to; names of the files that went."""
        if self._artifacts is None:
            return []
        return self._artifacts.drop({digest: since_s + file_lag_s for digest, since_s in freed.items()})

    def _sweep_files(self, now: float | int, needed: Collection[str]) -> list[str]:
        """Removes unneeded files without a row; returns their names."""
        with self._database.reading() as conn:
            # Read before the folder is listed: a row that is written later refers to a file younger than the grace
            # period.
            digests, paths = _references.referenced_digests(conn), _references.scene_paths(conn)
        gone = []
        if self._artifacts is not None:
            gone += self._artifacts.sweep(digests.union(needed), now=now, grace_s=self._grace_s)
        if self._scenes_folder is not None:
            gone += sweep_folder(self._scenes_folder, paths, now=now, grace_s=self._grace_s)
        return gone


def _finish(writing: Writing, job_id: str, index: int, result: JSONObject, sizes: Mapping[str, int]) -> bool:
    """Writes a running unit's result and its references; False if there is no such unit in an unfinished job."""
    # The job is locked first, as everywhere, so that it does not end in between.
    if _jobs.read_unfinished(writing.conn, job_id) is None:
        return False
    unit = _units.is_unit(job_id, index)
    if not _units.apply(writing.conn, unit, UnitEvent.FINISHED, result=result, error=None):
        return False
    _references.add_references(writing.conn, _references.JOB, job_id, sizes)
    return True
