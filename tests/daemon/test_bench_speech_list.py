"""A list of recordings: what it may look like, and what is said of one that is faulty."""

from __future__ import annotations

from pathlib import Path

import pytest

from harkd.speech_list import Recording, SpeechListError, read_list, spread


def listed(folder: Path, *lines: str) -> Path:
    """A list, beside two recordings in a folder and one without."""
    (folder / "home").mkdir(exist_ok=True)
    for name in ("home/a.wav", "home/b.wav", "c.wav"):
        (folder / name).touch()
    path = folder / "list.tsv"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def fault_of(path: Path) -> str:
    with pytest.raises(SpeechListError) as caught:
        read_list(path)
    return str(caught.value)


def test_columns_are_path_seconds_rate_text_and_source(tmp_path: Path) -> None:
    path = listed(tmp_path, "home/a.wav\t2.65\t16000\tturn it on\tsomewhere", "c.wav\t1")
    assert read_list(path) == [
        Recording(tmp_path / "home/a.wav", "home", "turn it on"),
        Recording(tmp_path / "c.wav", "", None),
    ]


def test_a_path_alone_is_enough_and_blank_lines_are_nothing(tmp_path: Path) -> None:
    path = listed(tmp_path, "home/a.wav", "", "home/b.wav\t\t\t")
    assert [each.text for each in read_list(path)] == [None, None]


def test_a_header_allows_other_columns_in_any_order(tmp_path: Path) -> None:
    path = listed(tmp_path, "text\tspeaker\tPath", "turn it on\tjo\thome/b.wav")
    assert read_list(path) == [Recording(tmp_path / "home/b.wav", "home", "turn it on")]


def test_a_path_from_the_root_has_no_category(tmp_path: Path) -> None:
    path = listed(tmp_path, f"{tmp_path}/home/a.wav")
    assert read_list(path) == [Recording(tmp_path / "home/a.wav", "", None)]


def test_all_faulty_lines_are_named_with_their_numbers(tmp_path: Path) -> None:
    fault = fault_of(listed(tmp_path, "home/a.wav", "\t1\t16000", "x.wav", "c.wav\tturn it on"))
    assert "list.tsv, line 2: it has no path" in fault
    assert f"list.tsv, line 3: {tmp_path}/x.wav does not exist" in fault
    assert 'list.tsv, line 4: its second column is to be seconds, not "turn it on"' in fault
    assert "a first line with the columns' names" in fault


def test_many_faults_are_not_all_shown(tmp_path: Path) -> None:
    fault = fault_of(listed(tmp_path, *("x.wav",) * 25))
    assert "line 10:" in fault
    assert "line 11:" not in fault
    assert "and 15 lines more" in fault


def test_a_path_that_no_file_can_have_is_a_fault(tmp_path: Path) -> None:
    assert "line 1:" in fault_of(listed(tmp_path, "x" * 5000))


@pytest.mark.parametrize("lines", [[], ["", " "], ["path\ttext"]])
def test_a_list_of_nothing_is_an_error(lines: list[str], tmp_path: Path) -> None:
    assert "names no recordings" in fault_of(listed(tmp_path, *lines))


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    assert "cannot be read" in fault_of(tmp_path / "none.tsv")
    assert "cannot be read" in fault_of(tmp_path)
    (tmp_path / "sound.wav").write_bytes(b"RIFF\xff\xfe\x80")
    assert "UTF-8" in fault_of(tmp_path / "sound.wav")


def test_a_limit_takes_items_evenly_so_that_each_part_keeps_its_share() -> None:
    items = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    taken = spread(items, 10)
    assert (taken.count("a"), taken.count("b"), taken.count("c")) == (6, 3, 1)
    assert spread(items, 1000) == items
    assert spread(items, None) == items
