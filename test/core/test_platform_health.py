"""Heat and throttling, read from a folder laid out like ``/sys``."""

from __future__ import annotations

import math

import pytest

from ddfd_ros.core.platform_health import PlatformMonitor


@pytest.fixture
def write(tmp_path):
    def write_file(path, value):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")

    return write_file


def zone(write, number, name, celsius, passive=None):
    folder = f"class/thermal/thermal_zone{number}"
    write(f"{folder}/type", name)
    write(f"{folder}/temp", round(celsius * 1000))
    if passive is not None:
        write(f"{folder}/trip_point_0_type", "active")  # a fan's
        write(f"{folder}/trip_point_0_temp", 40_000)
        write(f"{folder}/trip_point_1_type", "passive")
        write(f"{folder}/trip_point_1_temp", passive * 1000)


def test_a_machine_that_tells_nothing(tmp_path):
    health = PlatformMonitor(tmp_path / "absent").read()
    assert math.isnan(health.temperature_c)
    assert math.isnan(health.cpu_clock_fraction)
    assert health.throttling == ()


def test_the_hottest_zone_is_named(write, tmp_path):
    zone(write, 0, "CPU-therm", 61.5, passive=95)
    zone(write, 1, "GPU-therm", 72.0, passive=95)
    zone(write, 2, "PMIC-Die", -256.0)  # a sensor that is off
    (tmp_path / "class/thermal/thermal_zone3").mkdir()
    health = PlatformMonitor(tmp_path).read()
    assert (health.temperature_c, health.hottest_zone) == (72.0, "GPU-therm")
    assert health.throttling == ()


def test_close_to_the_limit(write, tmp_path):
    zone(write, 0, "tj-thermal", 93.0, passive=95)
    (said,) = PlatformMonitor(tmp_path).read().throttling
    assert "tj-thermal" in said
    assert "95" in said


def test_cooling_devices_that_slow_and_those_that_do_not(write, tmp_path):
    for number, (name, state) in enumerate(
        [("pwm-fan", 3), ("cpu-throttle-alert", 1), ("thermal-cpufreq-0", 0), ("Processor", 2)]
    ):
        folder = f"class/thermal/cooling_device{number}"
        write(f"{folder}/type", name)
        write(f"{folder}/cur_state", state)
        write(f"{folder}/max_state", 10)
    said = PlatformMonitor(tmp_path).read().throttling
    assert len(said) == 2
    assert "cpu-throttle-alert" in said[0]
    assert "Processor" in said[1]


def test_counters_count_from_the_start(write, tmp_path):
    core = "devices/system/cpu/cpu{}/thermal_throttle/core_throttle_count"
    write(core.format(0), 70)
    write(core.format(1), 5)
    write("class/hwmon/hwmon2/oc1_event_cnt", 3)
    monitor = PlatformMonitor(tmp_path)
    assert monitor.read().throttling == ()
    write(core.format(1), 9)
    write("class/hwmon/hwmon2/oc1_event_cnt", 4)
    throttled, supply = monitor.read().throttling
    assert "4 times" in throttled
    assert "1 times" in supply
    assert monitor.read().throttling == ()


def test_a_counter_shown_under_several_cpus_counts_once(write, tmp_path):
    """Two packages of two cores of two threads, as Linux lays them out."""
    cpus = [(package, core) for package in (0, 1) for core in (0, 1)] * 2

    def count(packages, cores):
        for number, (package, core) in enumerate(cpus):
            folder = f"devices/system/cpu/cpu{number}"
            write(f"{folder}/topology/physical_package_id", package)
            write(f"{folder}/topology/core_id", core)
            write(f"{folder}/thermal_throttle/package_throttle_count", packages[package])
            write(f"{folder}/thermal_throttle/core_throttle_count", cores[package, core])

    cores = {(0, 0): 5, (0, 1): 6, (1, 0): 7, (1, 1): 8}
    count([10, 20], cores)
    monitor = PlatformMonitor(tmp_path)
    count([11, 20], cores | {(1, 1): 10})
    (said,) = monitor.read().throttling
    assert "3 times" in said  # one package once, one core twice


def test_clocks(write, tmp_path):
    for core, (now, limit) in enumerate([(600, 1200), (1200, 1200)]):
        folder = f"devices/system/cpu/cpu{core}/cpufreq"
        write(f"{folder}/cpuinfo_max_freq", 2400)
        write(f"{folder}/scaling_cur_freq", now)
        write(f"{folder}/scaling_max_freq", limit)
    health = PlatformMonitor(tmp_path).read()
    assert health.cpu_clock_fraction == pytest.approx(0.375)
    assert health.cpu_limit_fraction == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("bits", "words"),
    [("0x0", []), ("50000", []), ("50005", ["under-voltage", "throttled"]), ("odd", [])],
)
def test_raspberry_pi(write, tmp_path, bits, words):
    # Bits from 16 on say what happened since the start, not now.
    write("devices/platform/soc/soc:firmware/get_throttled", bits)
    assert list(PlatformMonitor(tmp_path).read().throttling) == words
