"""Transcripts are written whole or not at all, and what stands in the way is told."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harkd import transcript_files
from harkd.interruption import Interrupted
from harkd.transcript_files import OutputError, OutputFullError, path_of, prepare, write


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_transcript_lies_in_its_place_with_the_folders_made(tmp_path: Path) -> None:
    write(tmp_path / "sub" / "a.wav.txt", "Éver tried\n")
    assert (tmp_path / "sub" / "a.wav.txt").read_bytes() == "Éver tried\n".encode()
    assert everything(tmp_path) == ["sub/a.wav.txt"]


def test_an_older_transcript_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.wav.txt"
    write(path, "a long old text")
    write(path, "new")
    assert path.read_text() == "new"
    assert everything(tmp_path) == ["a.wav.txt"]


def test_it_may_be_read_by_those_who_may_read_other_new_files(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write(tmp_path / "a.txt", "")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("when", ["os.fsync", "pathlib.Path.replace"])
def test_an_interruption_leaves_neither_a_part_nor_a_changed_file(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav.txt"
    write(path, "old")

    def interrupt(*_: object) -> None:
        raise Interrupted(2)

    monkeypatch.setattr(when, interrupt)
    with pytest.raises(Interrupted):
        write(path, "new")
    assert path.read_text() == "old"
    assert everything(tmp_path) == ["a.wav.txt"]


def test_a_full_disk_is_told_apart_since_it_concerns_all_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputFullError, match=r"No space left.*Make room"):
        write(tmp_path / "a.txt", "text")
    with pytest.raises(OutputFullError, match=str(tmp_path)):
        prepare(tmp_path)
    assert everything(tmp_path) == []


def test_a_name_that_is_too_long_concerns_one_file_only(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long") as caught:
        write(tmp_path / ("a" * 300), "")
    assert not isinstance(caught.value, OutputFullError)
    assert everything(tmp_path) == []


def test_a_folder_is_made_and_left_empty_by_the_trial(tmp_path: Path) -> None:
    prepare(tmp_path / "new" / "out")
    assert everything(tmp_path) == []
    assert (tmp_path / "new" / "out").is_dir()


def test_a_file_in_the_folder_s_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is a file, not a folder"):
        prepare(tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be written"):
        prepare(tmp_path / "out" / "below")


def test_a_folder_that_cannot_be_written_to_is_told() -> None:
    with pytest.raises(OutputError, match=r"/proc.* cannot be written .*--output-dir"):
        prepare(Path("/proc/harkd"))


def test_the_suffix_is_added_so_that_no_two_sounds_share_a_transcript() -> None:
    out = Path("out")
    assert path_of(Path("sub/a.wav"), out, ".srt") == out / "sub" / "a.wav.srt"
    assert path_of(Path("sub/a.mp3"), out, ".srt") == out / "sub" / "a.mp3.srt"


def test_two_processes_never_share_a_part(tmp_path: Path) -> None:
    parts = {transcript_files.part_of(tmp_path) for _ in range(10)}
    assert len(parts) == 10
    assert all(part.name.startswith(".") for part in parts)
