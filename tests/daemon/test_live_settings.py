"""Which settings change at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from harkd.live_settings import LIVE, differences, merged, value_of, with_value
from harkd.settings import LEAVES, Settings
from harkd.settings_file import Keys


def changed(keys: Keys) -> Settings:
    value = value_of(Settings(), keys)
    if isinstance(value, bool):
        return with_value(Settings(), keys, not value)
    return with_value(Settings(), keys, value + 1 if isinstance(value, int | float) else "other")


@pytest.mark.parametrize("keys", LEAVES, ids=".".join)
def test_a_difference_is_seen_and_taken_over_only_where_it_can_be(keys: Keys) -> None:
    new = changed(keys)
    assert differences(Settings(), new) == [keys]
    assert merged(Settings(), new) == (new if keys in LIVE else Settings())


def test_what_belongs_to_things_that_are_built_once_is_not_live() -> None:
    fixed = {"audio", "models", "state"}
    assert all(keys[0] not in fixed for keys in LIVE)
    for name in ("model", "threads"):
        assert ("recognizer", name) not in LIVE
    assert {keys for keys in LIVE if keys[0] == "mqtt"} == {
        ("mqtt", "max_age_s"),
        ("mqtt", "retain_last"),
    }


def test_the_documentation_names_them_all() -> None:
    text = (Path(__file__).parents[2] / "docs" / "mqtt.md").read_text(encoding="utf-8")
    (line,) = (each for each in text.split("\n\n") if each.startswith("What changes at once"))
    for keys in LIVE:
        path = ".".join(keys)
        assert f"`{path}`" in line or f"`{keys[0]}.*`" in line, path
