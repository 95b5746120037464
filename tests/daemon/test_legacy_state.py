"""What is in the state folder when the inputs have changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from harkd.announcing import Announced
from harkd.kept_options import Kept, OptionsFile
from harkd.kept_phrases import KeptPhrases, PhrasesFile
from harkd.legacy_state import take_over
from harkd.phrases.sent import Sent
from harkd.settings import AudioSettings, Settings, StateSettings

KITCHEN, HALL, HOST = (
    f"homeassistant/device/harkd_{name}/config" for name in ("kitchen", "hall", "host")
)


def settings(folder: Path, *names: str) -> Settings:
    inputs = {name: AudioSettings(device=name) for name in names}
    return replace(Settings(inputs=inputs), state=StateSettings(dir=str(folder)))


def test_what_was_announced_of_others_is_taken_back_by_the_first(tmp_path: Path) -> None:
    Announced(tmp_path).write([HOST])
    Announced(tmp_path / "inputs" / "hall").write([HALL])
    Announced(tmp_path / "inputs" / "kitchen").write([KITCHEN])
    take_over(settings(tmp_path, "kitchen", "bath"), {})
    assert Announced(tmp_path / "inputs" / "kitchen").read() == {KITCHEN, HALL, HOST}
    assert Announced(tmp_path).read() is None
    assert Announced(tmp_path / "inputs" / "hall").read() is None
    take_over(settings(tmp_path), {})
    assert Announced(tmp_path).read() == {KITCHEN, HALL, HOST}


def test_who_was_muted_before_there_were_inputs_is_muted_as_an_input(tmp_path: Path) -> None:
    muted, open_again = Kept(listen=False), Kept(listen=True)
    OptionsFile(tmp_path).write(muted)
    OptionsFile(tmp_path / "inputs" / "bath").write(open_again)
    take_over(settings(tmp_path, "kitchen", "bath"), {})
    assert OptionsFile(tmp_path / "inputs" / "kitchen").read() == (muted, "")
    assert OptionsFile(tmp_path / "inputs" / "bath").read() == (open_again, "")


def test_phrases_that_were_set_before_there_were_inputs_hold_for_new_ones(tmp_path: Path) -> None:
    before, own = (
        KeptPhrases(Sent(text=f'{{"intents":{{"{name}":["go"]}}}}', scope="all"))
        for name in ("before", "own")
    )
    PhrasesFile(tmp_path).write(before)
    PhrasesFile(tmp_path / "inputs" / "bath").write(own)
    take_over(settings(tmp_path, "kitchen", "bath"), {})
    assert PhrasesFile(tmp_path / "inputs" / "kitchen").read() == (before, "")
    assert PhrasesFile(tmp_path / "inputs" / "bath").read() == (own, "")


def test_nothing_is_made_where_nothing_was(tmp_path: Path) -> None:
    take_over(settings(tmp_path, "kitchen"), {})
    take_over(settings(tmp_path), {})
    assert not any(tmp_path.iterdir())
    (tmp_path / "inputs").write_text("no folder")
    take_over(settings(tmp_path), {})


def test_a_folder_that_cannot_be_written_is_told_and_nothing_more(tmp_path: Path) -> None:
    OptionsFile(tmp_path).write(Kept(listen=False))
    (tmp_path / "inputs").write_text("no folder")
    take_over(settings(tmp_path, "kitchen"), {})
