"""Endless fresh samples: a ring of the latest on the device, refilled from what worker processes lay in a folder.

Training draws from the ring at its own pace and never waits; how often a sample is seen follows from how fast new ones
come (`fresh` and `render_share` cap that). With `in_step` it waits instead, so that which samples an update may draw
depends on the seed alone: then a run can be repeated.

Shapes: see `samples`.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jaxtyping import Int32
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.training.packets import load_packet, samples_from_packet
from sphinx_nvs.training.samples import Sample, Samples, load_samples, stack_samples

WORLDS, REAL = "worlds", "real"
GROUPS = 5
"""Context counts that samples come in: 2 to 6."""
_PATIENCE_S = 300.0


class Ring:
    """The latest samples of one kind, in tensors allocated once."""

    def __init__(self, first: Samples, capacity: int) -> None:
        held = {k: v.new_zeros(capacity, *v.shape[1:]) for k, v in first.tensors().items()}
        self._held = Samples(num_context=first.num_context, **held)
        self._capacity, self._next, self._count = capacity, 0, 0
        self.put(first)

    def __len__(self) -> int:
        return self._count

    def put(self, samples: Samples) -> None:
        """Adds samples in place of the oldest."""
        device = samples.rgb.device
        where = (torch.arange(len(samples), device=device) + self._next) % self._capacity
        for name, held in self._held.tensors().items():
            held[where] = getattr(samples, name)
        self._next = (self._next + len(samples)) % self._capacity
        self._count = min(self._count + len(samples), self._capacity)

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """`count` of the samples, with repetition."""
        index = torch.randint(self._count, (count,), generator=generator)
        return self._held[index.to(self._held.rgb.device)]


class Stream:
    """A `Source` over a folder that workers fill: world packets, rendered here, and stacks of real samples.

    Args:
        folder: what `workers` write to; files are deleted when taken in.
        textures: `library.all_tiles` of the split, on the training device.
        size: pixels of a side.
        ring_bytes: memory for all rings together.
        fresh: new samples per drawn sample, at most.
        render_share: largest share of the time that goes into rendering (without `in_step`).
        real_share: how often a draw is of samples that the real regressor rendered, as soon as there are any.
        in_step: wait for the next packet when it is due, and take no real samples that come by chance.
        first: number of the first packet.
    """

    def __init__(
        self,
        folder: Path,
        textures: Int32[Tensor, "M texels"],
        size: int,
        *,
        ring_bytes: int,
        fresh: float = 0.25,
        render_share: float = 0.3,
        real_share: float = 0.3,
        in_step: bool = False,
        first: int = 0,
    ) -> None:
        self._folder, self._textures, self._size = folder, textures, size
        self._ring_bytes, self._fresh, self._real_share, self._in_step = ring_bytes, fresh, real_share, in_step
        self._rings: dict[str, dict[tuple[int, int, int], Ring]] = {WORLDS: {}, REAL: {}}
        self._due, self._render_share, self._started = 0.0, render_share, time.monotonic()
        self.next_packet = first
        self.figures = {"packets": 0.0, "real": 0.0, "fresh_samples": 0.0, "render_s": 0.0, "waited_s": 0.0}

    def __len__(self) -> int:
        return sum(len(ring) for rings in self._rings.values() for ring in rings.values())

    def fill(self, count: int) -> None:
        """Waits until `count` samples are there.

        Raises:
            InputError: nothing came for five minutes.
        """
        while len(self) < count:
            self._take_packet(wait=True)

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """See `Source.draw`; rings of one kind are drawn in proportion to what they hold."""
        self._due += self._fresh * count
        real = float(torch.rand((), generator=generator)) < self._real_share and self._rings[REAL]
        rings = self._rings[REAL if real else WORLDS]
        keys = sorted(rings)
        shares = torch.tensor([float(len(rings[key])) for key in keys])
        return rings[keys[int(torch.multinomial(shares, 1, generator=generator))]].draw(count, generator)

    def refresh(self) -> dict[str, float]:
        """Takes in at most one packet, when one is due, and one stack of real samples."""
        if self._due > 0 and (self._in_step or self._has_time):
            self._take_packet(wait=self._in_step)
        if not self._in_step:
            self._take_real()
        return {name: round(value, 2) for name, value in self.figures.items()}

    @property
    def _has_time(self) -> bool:
        """Whether rendering may take more of the device's time."""
        return self.figures["render_s"] < self._render_share * (time.monotonic() - self._started)

    def _settle(self) -> None:
        """Lets the device finish, so that its time is counted where it is spent."""
        if self._textures.is_cuda:
            torch.cuda.synchronize(self._textures.device)

    def _take_packet(self, wait: bool) -> None:
        """Renders the next packet; the next there is, unless packets must come in step."""
        there = sorted(self._folder.glob(f"{WORLDS}-*.safetensors"))
        if not wait and not there:
            return
        path = self._wait_for_packet() if wait else there[0]
        packet = load_packet(path)
        self._settle()
        started = time.monotonic()
        path.unlink()
        self.next_packet = max(self.next_packet, packet.seed + 1)
        for samples in samples_from_packet(packet, self._textures, self._size):
            self._put(WORLDS, samples)
            self._due -= len(samples)
        self._settle()
        self.figures["packets"] += 1
        self.figures["render_s"] += time.monotonic() - started

    def _wait_for_packet(self) -> Path:
        """The next packet's file: exactly the next in step, else any."""
        started = time.monotonic()
        pattern = f"{WORLDS}-{self.next_packet:07d}.safetensors" if self._in_step else f"{WORLDS}-*.safetensors"
        while not (found := sorted(self._folder.glob(pattern))):
            if time.monotonic() - started > _PATIENCE_S:
                raise InputError(f"stream {self._folder}", f"no {pattern} came", "read the workers' logs beside it")
            time.sleep(0.02)
        self.figures["waited_s"] += time.monotonic() - started
        return found[0]

    def _take_real(self) -> None:
        """Takes in one stack of samples that the real regressor rendered, if there is one."""
        path = next(self._folder.glob(f"{REAL}{self._size}-*.safetensors"), None)
        if path is None:
            return
        groups: dict[int, list[Sample]] = {}
        for sample in load_samples(path, Sample):
            groups.setdefault(int(sample.num_context), []).append(sample)
        path.unlink()
        for group in groups.values():
            self._put(REAL, stack_samples(group).to(self._textures.device))
            self.figures["real"] += len(group)

    def _put(self, kind: str, samples: Samples) -> None:
        """Adds samples to their ring; every ring has the same memory."""
        if not len(samples):
            return
        rings = self._rings[kind]
        self.figures["fresh_samples"] += len(samples)
        if samples.key in rings:
            rings[samples.key].put(samples)
            return
        # Two kinds of `GROUPS` rings may come to be; each gets its part of the memory from the start.
        each = sum(v[0].numel() * v.element_size() for v in samples.tensors().values())
        rings[samples.key] = Ring(samples, max(self._ring_bytes // (2 * GROUPS) // each, len(samples)))
