"""Which of the devices `audio.device` means, and which formats are worth trying. Pure.

In: PortAudio's devices and the sound server's sources, as `harkd.capture` lists them. Out: one of
each, or a `CaptureError` that names what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harkd.capture_errors import CaptureError

WANTED_RATE_HZ = 16000
FALLBACK_RATES_HZ = (48000, 44100, 32000, 96000, 8000)
MAX_REAL_CHANNELS = 16
"""Sound servers offer 32 or more channels for any source; above this a count says nothing."""


def choose_device(
    wanted: str,
    devices: Sequence[dict[str, Any]],
    sources: Callable[[], Sequence[dict[str, Any]]],
    default_index: int,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Find the one device that `wanted` means, and the PulseAudio source behind it, if named.

    `wanted` is ``default``, an index, a PulseAudio source's exact name, or a part of a device's
    or a source's description (case does not matter; an exact name wins over a part).
    """
    if not devices:
        raise CaptureError(
            "no_device",
            "no microphone found: PortAudio lists no input device",
            "plug one in; `harkd doctor` looks at permissions and the sound server",
        )
    if wanted == "default":
        chosen = next((d for d in devices if d["index"] == default_index), None)
        return chosen or devices[0], None
    if wanted.isdecimal():
        return device_at(int(wanted), devices), None
    return device_named(wanted, devices, sources)


def device_at(index: int, devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the input device with PortAudio's index."""
    for device in devices:
        if device["index"] == index:
            return device
    raise CaptureError(
        "no_such_device",
        f"no input device has the index {index}",
        "`harkd devices` lists them; a name is steadier than an index",
    )


def device_named(
    wanted: str,
    devices: Sequence[dict[str, Any]],
    sources: Callable[[], Sequence[dict[str, Any]]],
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Find the one device or PulseAudio source with this name, or with this in its name."""
    lowered = wanted.lower()
    if len(exact := [d for d in devices if d["name"].lower() == lowered]) == 1:
        return exact[0], None
    known = list(sources())
    if named := next((s for s in known if s["name"] == wanted), None):
        return pulse_device(devices), named
    matches = [d for d in devices if lowered in d["name"].lower()]
    if len(matches) == 1:
        return matches[0], None
    if not matches:
        described = ((s, f"{s['name']} {s['description']}".lower()) for s in known)
        matches = [source for source, text in described if lowered in text]
        # A headset's loudspeaker has a monitor with the same name in it.
        matches = [s for s in matches if not is_monitor(s["name"])] or matches
        if len(matches) == 1:
            return pulse_device(devices), matches[0]
    if matches:
        raise CaptureError(
            "ambiguous",
            f'audio.device "{wanted}" matches {len(matches)} devices: {listed(matches)}',
            "give more of the name in audio.device",
        )
    raise CaptureError(
        "no_such_device",
        f'no microphone matches audio.device "{wanted}"; there are {listed([*devices, *known])}',
        "plug it in, or set audio.device to one of these (`harkd devices`)",
    )


def listed(named: Sequence[dict[str, Any]]) -> str:
    """Return names in quotation marks."""
    return ", ".join(f'"{each["name"]}"' for each in named)


def is_monitor(name: str) -> bool:
    """Tell whether a PulseAudio source is what a loudspeaker plays."""
    return name.endswith(".monitor")


def pulse_device(devices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the PortAudio device that leads to PulseAudio."""
    for name in ("pulse", "default"):
        for device in devices:
            if device["name"] == name:
                return device
    raise CaptureError(
        "no_device",
        "ALSA has no way to PulseAudio on this machine",
        "install it: sudo apt install libasound2-plugins",
    )


def formats_to_try(
    device: dict[str, Any], source: dict[str, Any] | None, channel: str
) -> list[tuple[int, int]]:
    """Return (rate_hz, channels) in the order in which they are worth trying: 16 kHz first."""
    most = source["channels"] if source else device["max_channels"]
    real = most <= MAX_REAL_CHANNELS
    if channel == "mix":
        # A sound server mixes to mono by itself. PortAudio, asked for fewer channels than a bare
        # device has, hands on the first ones instead: with a microphone on the right, silence.
        mono_is_mixed = source is not None or not real
        counts = [1, most if real else 2] if mono_is_mixed else [most, 1]
    else:
        number = int(channel)
        if number > most:
            raise CaptureError(
                "no_such_channel",
                f'audio.channel is {number}, but "{device["name"]}" has {most}',
                f"set audio.channel to 1…{most} or mix",
            )
        # All channels first: a converting layer asked for one channel might mix them.
        counts = [most if real else number, number]
    rates = [WANTED_RATE_HZ, device["default_rate_hz"], *FALLBACK_RATES_HZ]
    return list(dict.fromkeys((rate, count) for rate in rates for count in counts))
