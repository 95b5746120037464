"""Prints docs/licences.md: whose software the images hold, from the packages' own metadata.

In: requirements/*.txt. pip tells the metadata of what it would install, which it mostly need not
download for that. Out: Markdown on stdout. Run by scripts/lock, with the pip of its environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REQUIREMENTS = Path("requirements")
LOCKS = {
    "harkd.txt": "both images",
    "cuda12.txt": "CUDA 12",
    "cuda13.txt": "CUDA 13",
    "convert.txt": "making the model",
}
"""Lock → where its packages are. A package counts for the first one that names it."""
HEAD = """\
# Licences of what the images hold

Written by `scripts/lock` from the packages' own metadata, for Python 3.11 on amd64; what is there
on Python 3.13 and arm64 differs in versions only. "Making the model" and PyTorch (BSD-3-Clause) are
in no image. What comes from Debian has its licences in `/usr/share/doc/*/copyright` of the image.

harkd itself is under Apache-2.0, the models under MIT; the image's label
`org.opencontainers.image.licenses` names both. NVIDIA's libraries are in the CUDA image only, and
are not free software.

| package | version | licence | in |
|---|---|---|---|
"""


def main() -> None:
    """Print the table."""
    rows: dict[tuple[str, str], str] = {}
    for lock, where in LOCKS.items():
        for metadata in installed_by(REQUIREMENTS / lock):
            key = (metadata["name"], metadata["version"])
            rows.setdefault(key, f"| {' | '.join([*key, licence_of(metadata), where])} |")
    print(HEAD + "\n".join(rows[key] for key in sorted(rows, key=lambda key: key[0].lower())))


def installed_by(lock: Path) -> Iterator[dict[str, Any]]:
    """Yield the metadata of each package that pip would install."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    command += ["--dry-run", "--ignore-installed", "--no-deps", "--require-hashes"]
    command += ["--report", "-", "--requirement", str(lock)]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    for each in report["install"]:
        yield each["metadata"]


def licence_of(metadata: dict[str, Any]) -> str:
    """Return the licence in the shortest words that the package has for it."""
    if expression := metadata.get("license_expression"):
        return str(expression)
    words = [
        each.rpartition(" :: ")[2]
        for each in metadata.get("classifier", [])
        if each.startswith("License :: ") and not each.endswith("OSI Approved")
    ]
    if words:
        return ", ".join(words)
    # Some put the whole text there.
    return str(metadata.get("license") or "not told").strip().splitlines()[0][:60].strip()


if __name__ == "__main__":
    main()
