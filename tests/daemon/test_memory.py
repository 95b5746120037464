"""What is free: the kernel's files, read from a folder that stands for the root."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harkd.memory import Kind, Room, cgroup_levels, rooms

MB = 1_000_000
MEMINFO = "MemTotal: 4000000 kB\nMemFree: 100 kB\nMemAvailable: 1000000 kB\n"
V2 = "24 1 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
HYBRID = V1 + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
UNLIMITED_V1 = "9223372036854771712"


class Host:
    """A folder that looks like the root of a machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def cgroup(self, folder: str, **files: object) -> None:
        for name, value in files.items():
            self.write(f"sys/fs/cgroup/{folder}/memory.{name.replace('__', '.')}", f"{value}\n")

    @property
    def rooms(self) -> list[Room]:
        return rooms(self.root)

    @property
    def cgroups(self) -> dict[str, Room]:
        return {r.where + (" soft" if r.soft else ""): r for r in self.rooms if r.kind == "cgroup"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path)
    host.write("proc/meminfo", MEMINFO)
    return host


def test_the_machine_has_free_what_the_kernel_says_is_available(host: Host) -> None:
    (room,) = host.rooms
    assert (room.kind, room.limit_bytes) == (Kind.MACHINE, 4_000_000 * 1024)
    assert (room.free_bytes, room.swap_bytes) == (1_000_000 * 1024, 0)


@pytest.mark.parametrize(
    ("device", "counts"), [("/dev/mmcblk0p3 partition", 1.0), ("/dev/zram0 partition", 0.5)]
)
def test_swap_counts_in_full_on_a_disk_and_by_half_in_memory(
    host: Host, device: str, counts: float
) -> None:
    host.write("proc/meminfo", MEMINFO + "SwapTotal: 1000 kB\nSwapFree: 800 kB\n")
    host.write("proc/swaps", f"Filename Type Size Used Priority\n{device} 1000 200 -2\n")
    (room,) = host.rooms
    assert room.swap_bytes == 800 * 1024 * counts
    assert room.most_bytes == room.free_bytes + room.swap_bytes


def test_a_machine_that_promises_no_more_than_it_has_is_a_limit_of_data(host: Host) -> None:
    commit = "CommitLimit: 500 kB\nCommitted_AS: 200 kB\n"
    host.write("proc/meminfo", MEMINFO + commit)
    host.write("proc/sys/vm/overcommit_memory", "0\n")
    assert len(host.rooms) == 1
    host.write("proc/sys/vm/overcommit_memory", "2\n")
    assert host.rooms[1] == Room(Kind.DATA, 500 * 1024, 300 * 1024, setting="vm.overcommit_memory")


def test_the_limits_of_the_process_count_what_it_has_mapped(host: Host) -> None:
    limits = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max data size             unlimited            unlimited            bytes     \n"
        "Max address space         512000000            unlimited            bytes     \n"
    )
    host.write("proc/self/limits", limits)
    host.write("proc/self/status", "Name:\tpython\nVmSize:\t  100000 kB\nVmData:\t 5 kB\n")
    assert host.rooms[1:] == [
        Room(Kind.ADDRESSES, 512_000_000, 512_000_000 - 102_400_000, setting="RLIMIT_AS")
    ]


def test_every_cgroup_up_to_the_mount_limits_us(host: Host) -> None:
    host.write("proc/self/mountinfo", V2)
    host.write("proc/self/cgroup", "0::/system.slice/harkd.service\n")
    host.cgroup("system.slice/harkd.service", max="max", high=300 * MB, current=200 * MB)
    host.cgroup("system.slice", max=900 * MB, high="max", current=800 * MB)
    found = host.cgroups
    assert set(found) == {"/system.slice/harkd.service soft", "/system.slice"}
    assert found["/system.slice"].free_bytes == 100 * MB
    assert found["/system.slice/harkd.service soft"].free_bytes == 100 * MB


def test_pages_of_files_in_a_cgroup_are_free(host: Host) -> None:
    host.write("proc/self/mountinfo", V2)
    host.write("proc/self/cgroup", "0::/\n")
    stat = f"anon {MB}\nactive_file {20 * MB}\ninactive_file {30 * MB}\nslab_reclaimable {5 * MB}"
    host.cgroup(".", max=256 * MB, current=200 * MB, stat=stat)
    assert host.cgroups["/"].free_bytes == (56 + 55) * MB


def test_a_cgroup_may_swap_no_more_than_its_own_limit_and_the_machines(host: Host) -> None:
    host.write("proc/meminfo", MEMINFO + "SwapFree: 100000 kB\n")
    host.write("proc/self/mountinfo", V2)
    host.write("proc/self/cgroup", "0::/\n")
    host.cgroup(".", max=256 * MB, current=0)
    assert host.cgroups["/"].swap_bytes == 102_400_000
    host.cgroup(".", swap__max=50 * MB, swap__current=20 * MB)
    assert host.cgroups["/"].swap_bytes == 30 * MB
    host.cgroup(".", swap__max=0)
    assert host.cgroups["/"].swap_bytes == 0


def test_version_1_is_read_on_a_host_that_mounts_both(host: Host) -> None:
    host.write("proc/self/mountinfo", HYBRID)
    host.write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/one\n0::/\n")
    for folder, limit in (("docker/one", 256 * MB), ("docker", UNLIMITED_V1), ("", UNLIMITED_V1)):
        host.cgroup(f"memory/{folder}", limit_in_bytes=limit, usage_in_bytes=100 * MB)
    host.cgroup("memory/docker/one", stat=f"total_inactive_file {7 * MB}\ninactive_file 1")
    (room,) = host.cgroups.values()
    assert (room.where, room.free_bytes) == ("/docker/one", 163 * MB)


def test_version_1_tells_a_limit_above_what_a_container_sees(host: Host) -> None:
    host.write("proc/self/mountinfo", V1)
    host.write("proc/self/cgroup", "4:memory:/\n")
    stat = f"hierarchical_memory_limit {128 * MB}\nhierarchical_memsw_limit {UNLIMITED_V1}"
    host.cgroup("memory", limit_in_bytes=UNLIMITED_V1, usage_in_bytes=28 * MB, stat=stat)
    assert host.cgroups["/"].free_bytes == 100 * MB


def test_version_1_limits_memory_and_swap_together(host: Host) -> None:
    host.write("proc/meminfo", MEMINFO + "SwapFree: 1000000 kB\n")
    host.write("proc/self/mountinfo", V1)
    host.write("proc/self/cgroup", "4:memory:/\n")
    host.cgroup("memory", limit_in_bytes=200 * MB, usage_in_bytes=50 * MB)
    assert host.cgroups["/"].swap_bytes == 1_024_000_000
    host.cgroup("memory", memsw__limit_in_bytes=220 * MB, memsw__usage_in_bytes=60 * MB)
    assert host.cgroups["/"].swap_bytes == 10 * MB
    host.cgroup("memory", swappiness=0)
    assert host.cgroups["/"].swap_bytes == 0


@pytest.mark.parametrize(
    ("mounted", "own", "expected"),
    [
        ("/", "/a/b", ["/a/b", "/a", "/"]),
        ("/", "/", ["/"]),  # a container with a namespace of its own
        ("/docker/one", "/docker/one", ["/"]),  # one without: both names are the host's
        ("/docker/one", "/docker/one/x", ["/x", "/"]),
        ("/docker/one", "/elsewhere", ["/"]),
        ("/", "/../other", ["/"]),  # moved out of its namespace
    ],
)
def test_our_cgroup_is_found_below_what_is_mounted(
    host: Host, mounted: str, own: str, expected: list[str]
) -> None:
    host.write("proc/self/mountinfo", V2.replace(" / /sys", f" {mounted} /sys"))
    host.write("proc/self/cgroup", f"0::{own}\n")
    assert [where for _, where, _ in cgroup_levels(host.root)] == expected


def test_blanks_in_the_place_of_the_mount_are_understood(host: Host) -> None:
    host.write("proc/self/mountinfo", V2.replace("/sys/fs/cgroup", r"/my\040groups"))
    host.write("proc/self/cgroup", "0::/\n")
    host.write("my groups/memory.max", "1000")
    host.write("my groups/memory.current", "400")
    assert host.cgroups["/"].free_bytes == 600


def test_a_root_without_any_file_has_no_limit(tmp_path: Path) -> None:
    assert rooms(tmp_path) == []


def test_this_machine_tells_what_it_has() -> None:
    machine = rooms()[0]
    assert machine.kind is Kind.MACHINE
    assert 0 < machine.free_bytes < machine.limit_bytes


KERNELS_WORDS = "MemAvailable:|memory|0::/|4:memory:/| - cgroup2 x rw|/|..|max|kB|VmSize: 1 kB"
ODD_WORDS = f"{'1' * 30}|-5|٣|\0|\\400|\n|\x1c|Max address space 5 "
WORDS = st.sampled_from(f"{KERNELS_WORDS}|{ODD_WORDS}".split("|"))
CONTENTS = st.one_of(st.binary(max_size=200), st.lists(WORDS).map(lambda w: " ".join(w).encode()))
FILES = [
    *(f"proc/{n}" for n in ("meminfo", "swaps", "sys/vm/overcommit_memory")),
    *(f"proc/self/{n}" for n in ("limits", "status", "mountinfo", "cgroup")),
    *(f"sys/fs/cgroup/memory.{n}" for n in ("max", "high", "current", "stat", "swap.max")),
    *(f"sys/fs/cgroup/memory.{n}_in_bytes" for n in ("limit", "usage", "memsw.limit")),
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.dictionaries(st.sampled_from(FILES), CONTENTS), st.sampled_from(["", V1, V2]))
def test_whatever_the_files_say_nothing_is_raised_and_no_room_is_negative(
    tmp_path: Path, contents: dict[str, bytes], mounts: str
) -> None:
    for name in FILES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if name in contents:
            file.write_bytes(contents[name])
    if mounts:
        (tmp_path / "proc/self/mountinfo").write_text(mounts.replace("cgroup/memory", "cgroup"))
        (tmp_path / "proc/self/cgroup").write_text("0::/\n4:memory:/\n")
    assert all(room.free_bytes >= 0 and room.swap_bytes >= 0 for room in rooms(tmp_path))
