"""Which settings can change while the daemon runs, and how two sets of them differ. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from harkd.settings import LEAVES, Settings
from harkd.settings_file import INPUTS, Keys

RECOGNIZER: Final = frozenset(
    {
        "partials",
        "partial_interval_ms",
        "partial_share",
        "partial_confidence",
        "draft",
        "incremental",
        "min_confidence",
        "hotwords",
    }
)
LIVE: Final = frozenset(
    {keys for keys in LEAVES if keys[0] in {"vad", "endpoint", "text", "log"}}
    | {("recognizer", name) for name in RECOGNIZER}
    | {("phrases", "mode"), ("phrases", "file")}
    | {("mqtt", "max_age_s"), ("mqtt", "retain_last")}
)
"""The options that hold at once; all others need a restart."""


def value_of(settings: Settings, keys: Keys) -> Any:
    """Return the value of one option."""
    value: Any = settings
    for key in keys:
        value = getattr(value, key)
    return value


def with_value(settings: Settings, keys: Keys, value: object) -> Settings:
    """Return the settings with another value of one option."""
    *section, name = keys
    if not section:
        return replace(settings, **{name: value})  # type: ignore[arg-type]
    changed = replace(getattr(settings, section[0]), **{name: value})
    return replace(settings, **{section[0]: changed})


def differences(old: Settings, new: Settings) -> list[Keys]:
    """Return the options that differ, in the order of the reference."""
    options: list[Keys] = [*LEAVES, (INPUTS,)]
    return [keys for keys in options if value_of(old, keys) != value_of(new, keys)]


def merged(old: Settings, new: Settings) -> Settings:
    """Return the old settings with the new values of what can change at once."""
    for keys in differences(old, new):
        if keys in LIVE:
            old = with_value(old, keys, value_of(new, keys))
    return old
