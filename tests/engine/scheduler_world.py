"""Devices that do what the scheduler says, and note everything that would break a law of it."""

import heapq

import numpy as np
from hypothesis import strategies as st

from sphinx_nvs.engine.scheduler.scheduler import Scheduler
from sphinx_nvs.engine.scheduler.types import Phase, Request, SchedulerConfig
from sphinx_nvs.engine.types.messages import DeviceLost, DeviceReady, Dropped, Finished, Refused, Regressed
from sphinx_nvs.engine.types.prices import PriceTable, Rung
from sphinx_nvs.load_testing.simulation.devices import Chance, Model
from sphinx_nvs.load_testing.simulation.simulate import split_units

WINDOW = 8
SHARES = {0.0: 0.02, 0.5: 0.05, 0.8: 0.1, 0.9: 0.15, 0.95: 0.25, 0.98: 0.5, 1.0: 1.0}


def prices_of(views, view_s=0.4):
    """Full quality takes `view_s` a view, lower ones less."""
    full = view_s * views
    rungs = [Rung(quality=q, seconds=full * s, seconds_p95=1.3 * full * s, active_share=s) for q, s in SHARES.items()]
    return PriceTable(regression_s=0.05 * full, regression_p95_s=0.06 * full, rungs=tuple(rungs))


def request_of(name, at=0.0, *, views=4, split_already=False, key="anonymous", **requests):
    """A request; its path is split once it is previewed, unless it is already."""
    units = split_units(name, views, WINDOW)
    return Request(
        job_id=name,
        key_id=key,
        accepted_at=float(at),
        num_views=views,
        prices=prices_of(views),
        size=(64, 64),
        units=units if split_already else units[:1],
        **requests,
    )


@st.composite
def requests(draw):
    """Fields of a request."""
    floor = draw(st.sampled_from([0.0, 0.3, 0.8, 0.9, 1.0]))
    return {
        "views": draw(st.integers(1, 14)),
        "key": draw(st.sampled_from("abc")),
        "min_quality": floor,
        "quality": draw(st.sampled_from([None, *(q for q in (0.8, 0.95, 1.0) if q >= floor)])),
        "deadline_s": draw(st.sampled_from([None, 0.1, 1.0, 3.0, 10.0, 60.0])),
        "priority": draw(st.sampled_from([0, 0, -10, 10])),
    }


class World:
    """A scheduler with devices.

    Args:
        devices: number of devices.
        config: the scheduler's configuration.
        speed: seconds of devices over those of the prices.
    """

    def __init__(self, devices=1, *, config=None, speed=1.0, seed=0):
        self.scheduler = Scheduler(config or SchedulerConfig(), devices)
        self.model = Model(Chance(speed=speed), np.random.default_rng(seed), steps=2)
        self.now, self.devices = 0.0, devices
        self.requests, self.left, self.decisions, self.ended = {}, {}, [], []
        self.events, self.life, self.number = [], [0] * devices, 0
        self.busy, self.holder = {}, {}
        for device in range(devices):
            self.scheduler.update(0.0, DeviceReady(device=device, name="fake"), device)

    def admit(self, request):
        """Takes a request on, if the scheduler does."""
        admission = self.scheduler.admit(self.now, request)
        if admission.accepted:
            units = split_units(request.job_id, request.num_views, WINDOW)
            self.requests[request.job_id] = Request(**{**vars(request), "units": units})
            self.left[request.job_id] = {unit.index for unit in units}
        self.dispatch()
        return admission

    def cancel(self, name):
        """Ends a job before its time."""
        self.left.pop(name, None)
        self.scheduler.cancel(self.now, name)
        self.dispatch()

    def crash(self, device):
        """A device loses everything and comes back."""
        self.life[device] += 1
        self.busy.pop(device, None)
        self.holder = {unit: at for unit, at in self.holder.items() if at != device}
        self.scheduler.update(self.now, DeviceLost(device=device), device)
        self.scheduler.check()
        self.put(self.now + 1.0, device, DeviceReady(device=device, name="fake"))
        self.dispatch()

    def refuse(self, device):
        """What a device does now fails."""
        decision = self.busy.get(device)
        if decision is None or decision.phase is Phase.DROP:
            return
        self.life[device] += 1
        report = Refused(units=decision.units, sentence="it did not work", is_users_fault=False)
        for unit in decision.units:
            self.holder.pop(unit, None)
        self.report(device, report)

    def put(self, at, device, report):
        """Something that will be reported."""
        self.number += 1
        heapq.heappush(self.events, (at, self.number, device, self.life[device], report))

    def dispatch(self):
        """Devices begin their commands, which must be valid."""
        decisions = self.scheduler.schedule(self.now)
        self.scheduler.check()
        for decision in decisions:
            self.obey(decision)

    def obey(self, decision):
        """One command."""
        device = decision.device
        assert device not in self.busy, "a device has one command at a time"
        if decision.phase is not Phase.DROP:
            assert all(unit[0] in self.left for unit in decision.units), "its job is unknown"
        if decision.phase in (Phase.REGRESS, Phase.BEGIN):
            self.check_new(decision)
        elif decision.phase is not Phase.DROP:
            for unit in decision.units:
                assert self.holder.get(unit) == device, "the unit is on another device"
        self.decisions.append((self.now, decision))
        self.busy[device] = decision
        seconds, report = self.model.carry_out(decision, self.requests)
        self.put(self.now + seconds, device, report)

    def check_new(self, decision):
        """A unit is on one device only, follows what it depends on, and gets no less than its floor."""
        request = self.requests[decision.unit[0]]
        assert decision.unit not in self.holder, "a unit is on two devices"
        running = [unit for command in self.busy.values() if command.phase is not Phase.DROP for unit in command.units]
        assert decision.unit not in running, "a unit is on two devices"
        assert decision.unit[1] in self.left[request.job_id], "a unit is made twice"
        if decision.phase is Phase.BEGIN:
            assert 0 not in self.left[request.job_id], "a unit has begun before the preview"
            assert decision.quality >= request.min_quality
            assert decision.min_quality == request.min_quality
            assert decision.within_s is None or decision.within_s >= 0
            if decision.degraded:
                assert decision.degraded.start > decision.degraded.to == decision.quality
                assert decision.degraded.why
            self.holder[decision.unit] = decision.device

    def step(self):
        """The next thing happens; False if nothing will."""
        if not self.events:
            return False
        at, _, device, life, report = heapq.heappop(self.events)
        self.now = max(self.now, at)
        if life == self.life[device]:
            self.report(device, report)
        return True

    def report(self, device, report):
        """A device says something."""
        self.busy.pop(device, None)
        if isinstance(report, Finished | Dropped):
            for unit in [report.unit] if isinstance(report, Finished) else report.units:
                if self.holder.get(unit) == device:
                    del self.holder[unit]
        self.scheduler.update(self.now, report, device)
        self.scheduler.check()
        if isinstance(report, Regressed | Finished) and report.unit[0] in self.left:
            self.done(*report.unit)
        self.dispatch()

    def done(self, name, index):
        """A unit is done."""
        left = self.left[name]
        left.discard(index)
        if index == 0:
            self.scheduler.extend(self.now, name, self.requests[name].units)
        if not left:
            del self.left[name]
            self.ended.append(name)

    def until(self, at):
        """Time passes."""
        while self.events and self.events[0][0] <= at:
            self.step()
        self.now = max(self.now, at)
        self.dispatch()

    def finish(self, most=20_000):
        """Runs until nothing happens any more."""
        for _ in range(most):
            if not self.step():
                return
        raise AssertionError("it never ends")

    def begun(self, name):
        """Decisions that began units of a job."""
        return [d for _, d in self.decisions if d.phase is Phase.BEGIN and d.unit[0] == name]
