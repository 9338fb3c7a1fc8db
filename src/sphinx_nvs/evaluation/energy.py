"""Energy of a block of work, if counters are readable: GPU by NVML, CPU by RAPL, both through `zeus`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class EnergyMeter:
    """Measures energy between `start` and `stop`.

    `missing` is the reason why nothing can be measured; None if it can.
    """

    missing: str | None = None
    _monitor: Any = field(default=None, repr=False)

    @staticmethod
    def open() -> EnergyMeter:
        """A meter; it measures nothing if zeus is not installed or finds no readable counter."""
        try:
            from zeus.monitor import ZeusMonitor

            monitor = ZeusMonitor(approx_instant_energy=True)
        except ImportError:
            return EnergyMeter("unavailable: package zeus missing")
        except Exception as error:
            # If counters cannot be read, zeus raises errors of its own, of NVML and of the operating system.
            return EnergyMeter(f"unavailable: {type(error).__name__}")
        if not monitor.gpu_indices and not monitor.cpu_indices:
            return EnergyMeter("unavailable: no counter can be read")
        return EnergyMeter(None, monitor)

    def start(self) -> None:
        """Starts a measurement."""
        if self._monitor is not None:
            self._monitor.begin_window("work")

    def stop(self) -> float | None:
        """Joules since `start`, GPU and CPU together; None if nothing can be measured."""
        if self._monitor is None:
            return None
        measured = self._monitor.end_window("work")
        cpu = sum((measured.cpu_energy or {}).values())
        return float(sum(measured.gpu_energy.values()) + cpu)
