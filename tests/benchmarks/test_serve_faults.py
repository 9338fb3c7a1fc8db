"""The judge of the fault test can fail: each way in which a run may be wrong is made up, and found."""

import asyncio
import hashlib
import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sphinx_nvs.client import ApiError, AsyncClient
from sphinx_nvs.client.exceptions import UnreachableError
from sphinx_nvs.engine.artifacts import ArtifactStore
from sphinx_nvs.engine.store.store import JobStore
from sphinx_nvs.engine.types.jobs import EventKind, JobSpec, Quote, UnitKind, UnitRow
from sphinx_nvs.engine.types.transitions import JobEvent
from sphinx_nvs.load_testing.upload_faults import POSED, UploadRun, judged, send
from sphinx_nvs.load_testing.verdict import Accepted, Kept, ReceivedEvent, judge, read_kept

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serve_faults.py"
FRAMES = {("preview", 0): "p0", ("preview", 1): "p1", ("final", 0): "f0", ("final", 1): "f1"}
EVENTS = (
    ReceivedEvent(seq=1, kind="queued"),
    ReceivedEvent(seq=2, kind="preview_frame", index=0, digest="p0"),
    ReceivedEvent(seq=3, kind="preview_frame", index=1, digest="p1"),
    ReceivedEvent(seq=5, kind="plan"),
    ReceivedEvent(seq=6, kind="frame_refined", index=0, digest="f0"),
    ReceivedEvent(seq=9, kind="frame_refined", index=1, digest="f1"),
    ReceivedEvent(seq=10, kind="completed"),
)
GOOD = Kept(
    job_id="job",
    key="key",
    state="completed",
    level="final",
    created_s=100.0,
    finished_s=110.0,
    frames=FRAMES,
    events=EVENTS,
)
ALONE = {3: FRAMES}


def promise(**fields):
    received = [replace(event, digest=None) for event in EVENTS]
    return Accepted(**{"job_id": "job", "key": "key", "request": 3, "received": received, **fields})


def verdict(job=GOOD, accepted=None, kills_s=(105.0,), undisturbed=ALONE):
    return judge([promise()] if accepted is None else accepted, [job], list(kills_s), undisturbed)


def test_a_job_that_was_hit_and_completed_is_good():
    found = verdict()
    assert found.is_good
    assert found.reasons == ()
    counted = (found.accepted, found.lost, found.duplicated, found.resumed, found.unfinished_at_kills, found.compared)
    assert counted == (1, 0, 0, 1, 1, 1)
    assert (found.preview_only, found.unknown) == (0, 0)


@pytest.mark.parametrize("at_s", [99.0, 110.0, 120.0])
def test_a_job_that_no_kill_hit_is_not_resumed(at_s):
    assert (verdict(kills_s=[at_s]).resumed, verdict(kills_s=[at_s]).unfinished_at_kills) == (0, 0)


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired", "queued", "refining"])
def test_a_job_in_another_state_is_lost(state):
    events = (
        (*EVENTS[:-1], ReceivedEvent(seq=10, kind=state))
        if state in ("failed", "cancelled", "expired")
        else EVENTS[:-1]
    )
    job = replace(GOOD, state=state, events=events, finished_s=None, reason="so it is")
    found = verdict(job, [promise(received=[])])
    assert (found.lost, found.resumed, found.unfinished_at_kills) == (1, 0, 1)
    assert not found.is_good
    assert f"is {state} (so it is)" in found.reasons[0]


def test_a_job_that_the_store_does_not_know_is_lost():
    found = judge([promise(job_id="other")], [GOOD], [], ALONE)
    assert (found.lost, found.unknown) == (1, 1)
    assert "is not in the store" in found.reasons[0]


def test_a_job_that_ended_with_its_preview_is_counted_by_itself():
    frames = {place: digest for place, digest in FRAMES.items() if place[0] == "preview"}
    events = (*EVENTS[:4], ReceivedEvent(seq=7, kind="completed"))
    found = verdict(replace(GOOD, level="preview", frames=frames, events=events), [promise(received=[])])
    assert (found.preview_only, found.lost, found.duplicated, found.resumed) == (1, 0, 0, 0)


def changed(place, event):
    return replace(GOOD, events=(*EVENTS[:place], event, *EVENTS[place:]))


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (
            changed(5, ReceivedEvent(seq=8, kind="frame_refined", index=0, digest="other")),
            "with 2 different digests",
        ),
        (
            changed(4, ReceivedEvent(seq=4, kind="preview_frame", index=1, digest="other")),
            "with 2 different digests",
        ),
        (changed(7, ReceivedEvent(seq=11, kind="completed")), "ended 2 times"),
        (changed(7, ReceivedEvent(seq=11, kind="failed")), "ended 2 times"),
        (changed(7, ReceivedEvent(seq=11, kind="progress")), "progress follows completed"),
        (replace(GOOD, events=EVENTS[:-1]), "its row says completed"),
        (replace(GOOD, events=(*EVENTS[:-1], ReceivedEvent(seq=10, kind="cancelled"))), "its row says completed"),
        (replace(GOOD, state="refining", level="preview"), "its last event is final, its row is not"),
        (replace(GOOD, frames={**FRAMES, ("final", 1): "other"}), "not those as its events say"),
        (replace(GOOD, frames={k: v for k, v in FRAMES.items() if k != ("final", 1)}), "not those as its events say"),
        (replace(GOOD, damaged=("final frame 0",)), "final frame 0 is missing or damaged"),
    ],
)
def test_a_job_that_contradicts_itself_is_duplicated(job, sentence):
    found = verdict(job, [promise(received=[], request=99)])
    assert found.duplicated == 1
    assert not found.is_good
    assert any(sentence in reason for reason in found.reasons)


@pytest.mark.parametrize("place", [("preview", 1), ("final", 0)])
def test_frames_unlike_those_of_an_undisturbed_run(place):
    found = verdict(undisturbed={3: {**FRAMES, place: "other"}})
    assert found.duplicated == 1
    assert "1 frames are not those when nothing is killed" in found.reasons[0]
    assert verdict(undisturbed={4: {**FRAMES, place: "other"}}).duplicated == 0


def test_a_frame_fewer_than_an_undisturbed_run():
    assert verdict(undisturbed={3: {**FRAMES, ("final", 2): "f2"}}).duplicated == 1


def received(*events):
    return [promise(received=[replace(event, digest=None) for event in events])]


@pytest.mark.parametrize(
    ("accepted", "sentence"),
    [
        (received(*EVENTS[:2], EVENTS[1]), "twice, or out of order"),
        (received(EVENTS[2], EVENTS[1]), "twice, or out of order"),
        (received(EVENTS[0], ReceivedEvent(seq=2, kind="plan")), "received plan as number 2"),
        (
            received(EVENTS[0], ReceivedEvent(seq=2, kind="preview_frame", index=1)),
            "received preview_frame as number 2",
        ),
        (received(EVENTS[0], ReceivedEvent(seq=77, kind="progress")), "received progress as number 77"),
        (received(*EVENTS[:3], EVENTS[-1]), "missed events"),
        ([promise(fetched={("final", 0): "other"})], "another one when its client fetched it"),
    ],
)
def test_a_client_that_received_something_else(accepted, sentence):
    found = verdict(accepted=accepted)
    assert found.duplicated == 1
    assert any(sentence in reason for reason in found.reasons)


def test_a_client_that_received_only_the_beginning_or_the_end_is_consistent():
    for events in (EVENTS[:3], EVENTS[3:], ()):
        assert verdict(accepted=received(*events)).is_good
    assert verdict(accepted=[promise(fetched={("final", 0): "f0"})]).is_good


def test_two_jobs_of_one_key():
    found = judge([promise()], [GOOD, replace(GOOD, job_id="twin")], [], ALONE)
    assert (found.duplicated, found.unknown) == (1, 1)
    assert "key: 2 jobs have it" in found.reasons[0]


# What a folder says ---------------------------------------------------------------------------------------------------

EYE = tuple(tuple(float(i == j) for j in range(4)) for i in range(4))


@pytest.fixture
def folder(tmp_path):
    """A server's folder with one job, completed, of two frames."""
    artifacts = ArtifactStore(tmp_path / "artifacts")
    store = JobStore.open(tmp_path / "jobs.sqlite", artifacts=artifacts)
    K = ((50.0, 0.0, 32.0), (0.0, 50.0, 32.0), (0.0, 0.0, 1.0))
    spec = JobSpec(scene="demo", c2w=(EYE, EYE), K=(K, K), width=64, height=64)
    quote = Quote(latency_s=1.0, latency_p95_s=2.0, wait_s=0.0, quality=1.0, active_share=1.0, reason="")
    kinds = (UnitKind.REGRESSION, UnitKind.CHUNK)
    units = [UnitRow(job_id="", index=i, kind=kind, targets=(0, 1)) for i, kind in enumerate(kinds)]
    row, _ = store.create_job(
        spec, key_id="anonymous", units=units, quote=quote, idempotency_key="k", expires_s=1e9, now=100.0
    )
    for index, (level, kind) in enumerate([("preview", EventKind.PREVIEW_FRAME), ("final", EventKind.FRAME_REFINED)]):
        store.start_unit(row.id, index)
        frames = {str(i): artifacts.put(f"{level} {i}".encode(), suffix=".png") for i in range(2)}
        events = [(kind, {"index": int(i), "frame": digest}) for i, digest in frames.items()]
        store.finish_unit(row.id, index, result={"frames": frames}, events=events, now=102.0)
    store.record(row.id, JobEvent.REFINED, now=103.0, quality=1.0, events=[(EventKind.COMPLETED, {})])
    store.close()
    return tmp_path


def test_a_folder_is_read(folder):
    (job,) = read_kept(folder)
    assert (job.key, job.state, job.level, job.created_s, job.finished_s) == ("k", "completed", "final", 100.0, 103.0)
    assert [event.kind for event in job.events] == [
        "queued",
        *["preview_frame"] * 2,
        *["frame_refined"] * 2,
        "completed",
    ]
    assert {(e.index, e.digest) for e in job.events if e.kind == "frame_refined"} == {
        (i, job.frames["final", i]) for i in range(2)
    }
    mine = Accepted(job_id=job.job_id, key="k", request=0, received=list(job.events))
    assert judge([mine], [job], [101.0], {0: job.frames}).is_good


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"torn"), lambda path: path.unlink()])
def test_damaged_files_are_found(folder, harm):
    (job,) = read_kept(folder)
    harm(ArtifactStore(folder / "artifacts").path(job.frames["final", 1]))
    (harmed,) = read_kept(folder)
    assert harmed.damaged == ["final frame 1"]
    assert judge([], [harmed], [], {}).duplicated == 1


# Uploads --------------------------------------------------------------------------------------------------------------


class Scenes(AsyncClient):
    """A client of a server with these scenes."""

    def __init__(self, **scenes):
        self.scenes, self.uploads = scenes, []

    async def scene(self, scene_id):
        if scene_id not in self.scenes:
            raise ApiError(status=404, detail="There is no scene with this id.")
        return self.scenes[scene_id]

    async def scene_cameras(self, scene_id):
        return {"frames": []}

    async def scene_photo(self, scene_id, index):
        return b"photo %d" % index


def stored(status="ready", reason="", num_views=2):
    return SimpleNamespace(status=status, reason=reason, num_views=num_views)


PHOTOS = tuple(hashlib.sha256(b"photo %d" % index).hexdigest() for index in range(2))


@pytest.mark.parametrize(
    ("scene", "lost", "given_up", "sentence"),
    [
        (stored(), 0, 0, ""),
        (None, 1, 0, "cannot be read: There is no scene"),
        (stored("failed", "its files are damaged"), 1, 0, "is failed (its files are damaged)"),
        (stored("failed", "scene: the process that reads it was killed 3 times"), 0, 1, ""),
        (stored(num_views=3), 1, 0, "has other photos"),
    ],
)
def test_an_upload_that_was_answered_is_a_whole_scene_or_lost(scene, lost, given_up, sentence):
    client = Scenes(**({} if scene is None else {"mine": scene}))
    run = UploadRun(answered={"mine": POSED})
    found = asyncio.run(judged(client, run, {POSED: PHOTOS}))
    assert (found.answered, found.lost, found.given_up) == (1, lost, given_up)
    assert sentence in "".join(found.reasons)


def test_uploads_that_are_refused_count_as_lost_unless_they_may_come_again():
    outcomes = iter(
        [
            ApiError(status=503, detail="killed", retry_after_s=0.0),
            ApiError(status=422, detail="damaged"),
            UnreachableError("http://localhost", "no answer"),
        ]
    )

    async def upload_scene(**_):
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome
        return SimpleNamespace(id="mine", status="ready")

    client, run = Scenes(mine=stored()), UploadRun()
    client.upload_scene = upload_scene
    asyncio.run(send(client, run, POSED, lambda: bool(run.answered), 0))
    assert (run.put_off, run.cut_off, dict(run.refused)) == (1, 1, {"422 damaged": 1})
    found = asyncio.run(judged(client, run, {POSED: PHOTOS}))
    assert (found.lost, found.reasons) == (1, ("an upload was refused 1 times: 422 damaged",))


# The script -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(monkeypatch):
    """The script."""
    spec = importlib.util.spec_from_file_location("serve_faults_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1)])
def test_the_exit_code_says_whether_something_was_lost(benchmark, monkeypatch, capsys, state, code):
    async def disturbed(folder, kills, clients, seed):
        assert kills == 10
        return benchmark.Run(accepted=[promise(received=[])], kills=[("all", 105.0)])

    async def quiet(folder, requests):
        assert requests == [3]
        return ALONE

    events = (*EVENTS[:-1], ReceivedEvent(seq=10, kind=state))
    for name, value in {
        "disturbed": disturbed,
        "undisturbed": quiet,
        "read_kept": lambda folder: [replace(GOOD, state=state, events=events)],
    }.items():
        monkeypatch.setattr(benchmark, name, value)
    assert benchmark.main(["--quick"]) == code
    figures = json.loads(capsys.readouterr().out)
    assert (figures["accepted"], figures["lost"], figures["resumed"]) == (1, code, 1 - code)
    assert figures["kills"] == {"worker": 0, "server": 0, "all": 1, "decoder": 0}


@pytest.mark.slow
def test_a_real_server_loses_nothing(benchmark, tmp_path):
    run = asyncio.run(benchmark.disturbed(tmp_path / "disturbed", 3, 3, 1))
    quiet = asyncio.run(benchmark.undisturbed(tmp_path / "quiet", sorted({p.request for p in run.accepted})))
    found = judge(run.accepted, read_kept(tmp_path / "disturbed"), [at_s for _, at_s in run.kills], quiet)
    assert found.is_good, found.reasons
    assert found.accepted >= 3
    assert found.resumed >= 1
    assert run.orphans == 0
