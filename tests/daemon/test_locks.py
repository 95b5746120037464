"""requirements/ holds what pyproject.toml asks for; `scripts/lock` mends what fails here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)
LOCKS = {
    "harkd.txt": ["broker", "wake"],
    "convert.txt": ["broker", "wake", "convert"],
    "tests.txt": ["broker", "wake", "dev"],
    "cuda12.txt": ["broker", "wake"],
    "cuda13.txt": ["broker", "wake"],
}
ELSEWHERE = {"convert.txt": {"torch"}, "cuda12.txt": {"onnxruntime"}, "cuda13.txt": {"onnxruntime"}}
"""PyTorch stands in torch.txt; onnxruntime-gpu takes onnxruntime's place."""


def pinned(lock: str) -> dict[str, set[str]]:
    """Return the versions of each package; more than one where they differ by Python."""
    found: dict[str, set[str]] = {}
    for name, version in PINNED.findall((ROOT / "requirements" / lock).read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_fits_what_is_asked_for(lock: str) -> None:
    asked = [*PROJECT["dependencies"]]
    for extra in LOCKS[lock]:
        asked += PROJECT["optional-dependencies"][extra]
    there = pinned(lock)
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        if name not in ELSEWHERE.get(lock, set()):
            assert there.get(name), f"{name} is missing: run scripts/lock"
            assert all(requirement.specifier.contains(Version(one)) for one in there[name])


@pytest.mark.parametrize("lock", LOCKS)
def test_all_locks_agree_on_a_version(lock: str) -> None:
    there, harkd = pinned(lock), pinned("harkd.txt")
    for name in there.keys() & harkd.keys():
        assert there[name] <= harkd[name]


@pytest.mark.parametrize("lock", [*LOCKS, "build.txt", "lint.txt", "torch.txt"])
def test_each_package_of_a_lock_has_hashes(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)
