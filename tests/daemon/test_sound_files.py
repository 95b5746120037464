"""Which files are meant by files and folders, and where their transcripts belong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harkd.sound_files import find


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tests' paths are relative to this."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def paths(*named: str) -> list[str]:
    return [str(file.path) for file in find([Path(name) for name in named]).files]


def places(*named: str) -> list[str]:
    return [str(file.place) for file in find([Path(name) for name in named]).files]


def test_a_named_file_is_taken_whatever_it_is_called() -> None:
    touch("talk.bin", ".hidden.wav")
    assert paths("talk.bin", ".hidden.wav", "missing.wav") == [
        "talk.bin",
        ".hidden.wav",
        "missing.wav",
    ]


def test_a_folder_is_searched_at_any_depth_in_sorted_order() -> None:
    touch("rec/b.flac", "rec/a.wav", "rec/sub/deep/c.MP3", "rec/sub/d.opus", "rec/e.ogg")
    assert paths("rec") == [
        "rec/a.wav",
        "rec/b.flac",
        "rec/e.ogg",
        "rec/sub/d.opus",
        "rec/sub/deep/c.MP3",
    ]


def test_what_is_hidden_or_no_sound_is_left_out_of_a_folder() -> None:
    touch("rec/a.wav", "rec/.b.wav", "rec/.git/c.wav", "rec/notes.txt", "rec/film.mkv", "rec/raw")
    assert paths("rec") == ["rec/a.wav"]


def test_a_pipe_in_a_folder_is_left_out_since_it_would_never_end() -> None:
    touch("rec/a.wav")
    os.mkfifo("rec/b.wav")
    assert paths("rec") == ["rec/a.wav"]


def test_links_to_folders_are_not_followed_and_links_to_files_are() -> None:
    touch("rec/a.wav")
    Path("rec/round").symlink_to("..")
    Path("rec/link.wav").symlink_to("a.wav")
    Path("rec/nowhere.wav").symlink_to("gone.wav")
    assert paths("rec") == ["rec/a.wav", "rec/link.wav", "rec/nowhere.wav"]


def test_arguments_keep_their_order_and_each_file_comes_once() -> None:
    touch("z/a.wav", "z/b.wav", "c.wav")
    assert paths("z/b.wav", "c.wav", "z", "./c.wav") == ["z/b.wav", "c.wav", "z/a.wav"]


def test_a_folder_without_sound_files_is_told_and_the_rest_is_found() -> None:
    touch("rec/notes.txt", "a.wav")
    found = find([Path("rec"), Path("a.wav")])
    assert [file.path for file in found.files] == [Path("a.wav")]
    (fault,) = found.faults
    assert str(fault).startswith("rec holds no sound files. Name files, or a folder with wav")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told() -> None:
    touch("rec/a.wav", "rec/closed/b.wav")
    Path("rec/closed").chmod(0)
    found = find([Path("rec")])
    Path("rec/closed").chmod(0o700)
    assert [file.path for file in found.files] == [Path("rec/a.wav")]
    (fault,) = found.faults
    assert "rec/closed cannot be searched" in str(fault)


def test_the_content_of_a_folder_named_alone_lies_at_the_top() -> None:
    touch("rec/a.wav", "rec/sub/a.wav")
    assert places("rec") == places(f"{Path.cwd()}/rec") == ["a.wav", "sub/a.wav"]
    os.chdir("rec")
    assert places(".") == ["a.wav", "sub/a.wav"]


def test_several_folders_keep_their_names() -> None:
    touch("mon/a.wav", "tue/a.wav", "tue/sub/b.wav")
    assert places("mon", "tue") == ["mon/a.wav", "tue/a.wav", "tue/sub/b.wav"]


def test_a_named_file_lies_at_the_top() -> None:
    touch("rec/a.wav", "far/away/b.wav")
    assert places("rec/a.wav", "far/away/b.wav") == ["a.wav", "b.wav"]
    assert places("rec", "far/away/b.wav") == ["rec/a.wav", "b.wav"]


def test_arguments_of_one_name_are_told_apart_by_the_folders_above_them() -> None:
    touch("x/talk.wav", "y/talk.wav", "y/other.wav", "x/rec/a.wav", "y/rec/a.wav")
    assert places("x/talk.wav", "y/talk.wav", "y/other.wav") == [
        "x/talk.wav",
        "y/talk.wav",
        "y/other.wav",
    ]
    assert places("x/rec", "y/rec") == ["x/rec/a.wav", "y/rec/a.wav"]
