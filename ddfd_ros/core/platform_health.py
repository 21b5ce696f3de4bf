"""Heat and throttling of the machine, as far as Linux tells in ``/sys``.

A robot's computer in the sun computes at half its clock, and depth arrives late for a reason that
no log mentions. What is read, each where it exists: thermal zones with their trip points, cooling
devices that slow a processor, Intel's throttle counters, the clock limit of each core, Jetson's
over-current counters and the Raspberry Pi firmware's throttle bits. A few dozen small files, about
a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NEAR_LIMIT_C = 3.0
_HOTTEST_SANE_C = 200.0
_LIMITING = ("passive", "hot", "critical")
_SLOWING = ("processor", "cpu", "gpu", "throttle", "devfreq", "intel_powerclamp", "dvfs")
_NOT_SLOWING = ("fan",)
_PI_NOW = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}


@dataclass(frozen=True)
class PlatformHealth:
    """What the machine says about itself at one moment.

    Attributes:
        temperature_c: The hottest thermal zone in degrees Celsius; NaN where none is told.
        hottest_zone: Its name.
        cpu_clock_fraction: Mean clock of the cores over the highest they can do; NaN if untold.
        cpu_limit_fraction: The clock they are allowed over the highest they can do; a power mode
            or the thermal governor lowers it.
        throttling: In words, what slows the machine down or is about to; empty: nothing is known.
    """

    temperature_c: float = math.nan
    hottest_zone: str = ""
    cpu_clock_fraction: float = math.nan
    cpu_limit_fraction: float = math.nan
    throttling: tuple[str, ...] = ()


class PlatformMonitor:
    """Reads the machine's state again and again; counters are judged by their growth.

    Args:
        root: Where ``/sys`` is.
    """

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._root = root
        self._counters = dict(self._read_counters())

    def read(self) -> PlatformHealth:
        """The state now. What cannot be read is left out; nothing is raised."""
        zones = list(self._zones())
        hottest = max(zones, default=(math.nan, "", ""))
        clock, limit = self._cpu_clock()
        near = [said for _, _, said in zones if said]
        throttling = (*near, *self._cooling(), *self._grown_counters(), *self._raspberry_pi())
        return PlatformHealth(hottest[0], hottest[1], clock, limit, throttling)

    def _zones(self) -> Iterator[tuple[float, str, str]]:
        """Temperature, name, and what is wrong, of each thermal zone."""
        for zone in sorted(self._root.glob("class/thermal/thermal_zone*")):
            millidegrees = _number(zone / "temp")
            name = _text(zone / "type") or zone.name
            if not 0 < millidegrees / 1e3 < _HOTTEST_SANE_C:
                continue
            limits = [
                limit / 1e3
                for trip in zone.glob("trip_point_*_type")
                if _text(trip) in _LIMITING
                and (limit := _number(trip.with_name(trip.name.replace("_type", "_temp")))) > 0
            ]
            limit_c = min(limits, default=math.inf)
            said = ""
            if millidegrees / 1e3 > limit_c - _NEAR_LIMIT_C:
                said = f"{name} has {millidegrees / 1e3:.0f} C, it is slowed from {limit_c:.0f} C"
            yield millidegrees / 1e3, name, said

    def _cooling(self) -> Iterator[str]:
        for device in sorted(self._root.glob("class/thermal/cooling_device*")):
            name = _text(device / "type")
            slows = any(word in name.lower() for word in _SLOWING)
            if not slows or any(word in name.lower() for word in _NOT_SLOWING):
                continue
            state, most = _number(device / "cur_state"), _number(device / "max_state")
            if state > 0:
                yield f"{name} slows the machine (step {state:.0f} of {most:.0f})"

    def _cpu_clock(self) -> tuple[float, float]:
        clocks, limits = [], []
        for core in self._root.glob("devices/system/cpu/cpu[0-9]*/cpufreq"):
            highest = _number(core / "cpuinfo_max_freq")
            if highest > 0:
                clocks.append(_number(core / "scaling_cur_freq") / highest)
                limits.append(_number(core / "scaling_max_freq") / highest)
        return _mean(clocks), _mean(limits)

    def _read_counters(self) -> Iterator[tuple[str, float]]:
        if counters := self._throttle_counters():
            yield "the processor throttled itself", float(sum(counters.values()))
        over_current = [*self._root.glob("class/hwmon/hwmon*/oc*_event_cnt")]
        if over_current:
            events = float(sum(filter(_known, map(_number, over_current))))
            yield "the supply was over its current limit", events

    def _throttle_counters(self) -> dict[tuple[str, ...], float]:
        """Each counter once: a package's is shown under all its CPUs, a core's under each thread.

        CPUs whose place is not told count each for itself.
        """
        counters: dict[tuple[str, ...], float] = {}
        for folder in self._root.glob("devices/system/cpu/cpu[0-9]*/thermal_throttle"):
            cpu = folder.parent
            package = _text(cpu / "topology/physical_package_id")
            core = _text(cpu / "topology/core_id")
            places = {
                "package": (package,) if package else ("cpu", cpu.name),
                "core": (package, core) if package and core else ("cpu", cpu.name),
            }
            for kind, place in places.items():
                count = _number(folder / f"{kind}_throttle_count")
                if _known(count):
                    key = kind, *place
                    counters[key] = max(counters.get(key, 0.0), count)
        return counters

    def _grown_counters(self) -> Iterator[str]:
        for name, count in self._read_counters():
            before, self._counters[name] = self._counters.get(name, count), count
            if count > before:
                yield f"{name} ({count - before:.0f} times since the last report)"

    def _raspberry_pi(self) -> Iterator[str]:
        text = _text(self._root / "devices/platform/soc/soc:firmware/get_throttled")
        try:
            bits = int(text, 16) if text else 0
        except ValueError:
            return
        yield from (said for bit, said in _PI_NOW.items() if bits >> bit & 1)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:  # absent, or a sensor that sleeps
        return ""


def _number(path: Path) -> float:
    try:
        return float(_text(path))
    except ValueError:
        return math.nan


def _known(value: float) -> bool:
    return not math.isnan(value)


def _mean(values: list[float]) -> float:
    known = [value for value in values if _known(value)]
    return sum(known) / len(known) if known else math.nan
