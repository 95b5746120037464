"""harkd and its peers side by side, with the same weights, on the same recordings, on one core.

    .venv/bin/pip install 'sherpa-onnx==2.0.1' 'moonshine-voice==0.1.0'
    .venv/bin/python bench/peers.py LIST --limit 40 --model PACKAGE

LIST is a list of recordings as `harkd bench --speech` takes it. The peers run the very files of
the model moonshine-tiny-en, which must be installed; PACKAGE is another harkd package of the same
weights, by name or path. Subjects take turns on each recording in random order. The process pins
itself to one core before anything is loaded, so that each runtime makes one thread.

whole: the recording at once. sherpa-onnx and harkd take it as one utterance; moonshine-voice's
`transcribe_without_streaming` always looks for speech in it first, and transcribes each piece.
live: moonshine-voice's stream with its default update interval of 0.5 s, fed 100 ms at a time;
harkd with its default settings, in virtual time. Both get the recording as it is, with no silence
after it. moonshine-voice is called through its C functions with a pointer to the samples, and of
its answer only the texts are read: its Python class would copy all audio into lists of Python
floats, in and out, which is no work of the engine, and costs more. Its texts vary a little from
run to run, also those of its class.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from harkd.audio import RATE_HZ, Int16
from harkd.bench_live import Live, Shown
from harkd.bench_machine import installed, this_machine
from harkd.bench_measure import Heard, Subject, measure
from harkd.bench_report import ALL, Figures, errors_cell, figures_of, table
from harkd.bench_whole import Whole
from harkd.bench_words import MISSING, load_normalizer
from harkd.errors import HarkdError
from harkd.model_store import InstalledModel, store_of
from harkd.recognizer.factory import load_recognizer  # before the peers: it turns telemetry off
from harkd.recognizer.moonshine_tokens import Tokenizer
from harkd.settings import Settings
from harkd.speech_list import read_list, spread

BASE = "moonshine-tiny-en"
PIECE_SAMPLES = RATE_HZ // 10
UPDATE_S = 0.5
SHERPA, MOONSHINE = "sherpa-onnx whole", "moonshine-voice live"


def scaled(samples: Int16) -> NDArray[np.float32]:
    """Return audio as the peers take it: float32, shape (n,), -1…1."""
    return np.ascontiguousarray(samples, np.float32) / np.float32(32768)


class Sherpa:
    """sherpa-onnx's offline recognizer."""

    name = SHERPA

    def __init__(self, files: dict[str, Path], tokens: Path) -> None:
        import sherpa_onnx

        self._recognizer = sherpa_onnx.OfflineRecognizer.from_moonshine_v2(
            encoder=str(files["encoder"]),
            decoder=str(files["decoder"]),
            tokens=str(tokens),
            num_threads=1,
        )

    def prepare(self) -> None:
        """Nothing to do."""

    def hear(self, samples: Int16) -> Heard:
        """Recognize it at once."""
        stream = self._recognizer.create_stream()
        stream.accept_waveform(RATE_HZ, scaled(samples))
        self._recognizer.decode_stream(stream)
        return Heard(stream.result.text.strip(), finals=1)


class MoonshineVoice:
    """What moonshine-voice's two ways have in common: the C functions of its library."""

    def __init__(self, transcriber: Any) -> None:
        from moonshine_voice.moonshine_api import TranscriptC

        self._transcriber = transcriber
        self.handle = transcriber._handle
        self.lib = transcriber._lib
        self._kind = ctypes.POINTER(TranscriptC)

    def prepare(self) -> None:
        """Nothing to do."""

    def check(self, code: int) -> int:
        """Return a function's answer, unless that is an error."""
        if code < 0:
            raise RuntimeError(self.lib.moonshine_error_to_string(code).decode())
        return code

    def answer(self) -> Any:
        """Make a place for a transcript."""
        return self._kind()

    @staticmethod
    def pointer(audio: NDArray[np.float32]) -> Any:
        """Return the audio's address: float32, shape (n,), contiguous."""
        return audio.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    @staticmethod
    def lines(answer: Any) -> Iterator[tuple[Any, str]]:
        """Yield each line of a transcript, and its text."""
        if answer:
            for at in range(answer.contents.line_count):
                line = answer.contents.lines[at]
                text = ctypes.string_at(line.text) if line.text else b""
                yield line, text.decode(errors="ignore").strip()


class MoonshineVoiceWhole(MoonshineVoice):
    """`Transcriber.transcribe_without_streaming`, of a new transcriber for each recording.

    One that is used again begins the text of a recording with sounds of the one before: of 40
    recordings, 0.1.0 then had 55 errors in 516 words instead of 41.
    """

    name = "moonshine-voice whole"

    def __init__(self, load: Callable[[], Any]) -> None:
        super().__init__(load())
        self._load = load

    def prepare(self) -> None:
        """Load a transcriber that has heard nothing."""
        super().__init__(self._load())

    def hear(self, samples: Int16) -> Heard:
        """Recognize it at once."""
        audio, answer = scaled(samples), self.answer()
        self.check(
            self.lib.moonshine_transcribe_without_streaming(
                self.handle, self.pointer(audio), len(audio), RATE_HZ, 0, ctypes.byref(answer)
            )
        )
        texts = [text for _, text in self.lines(answer)]
        return Heard(" ".join(texts), finals=len(texts))


class MoonshineVoiceLive(MoonshineVoice):
    """`Transcriber.create_stream(0.5)`, its `add_audio` and `stop`."""

    name = MOONSHINE

    def hear(self, samples: Int16) -> Heard:
        """Run it from its begin to its end."""
        audio = scaled(samples)
        stream = self.check(self.lib.moonshine_create_stream(self.handle, 0))
        course = _LiveCourse()
        try:
            self.check(self.lib.moonshine_start_stream(self.handle, stream))
            # As in `Stream.add_audio`, down to the rounding errors.
            now_s = updated_s = 0.0
            for at in range(0, len(audio), PIECE_SAMPLES):
                piece = audio[at : at + PIECE_SAMPLES]
                self.check(
                    self.lib.moonshine_transcribe_add_audio_to_stream(
                        self.handle, stream, self.pointer(piece), len(piece), RATE_HZ, 0
                    )
                )
                now_s += len(piece) / RATE_HZ
                if now_s - updated_s >= UPDATE_S:
                    self._update(stream, course)
                    updated_s = now_s
            self.check(self.lib.moonshine_stop_stream(self.handle, stream))
            self._update(stream, course)
        finally:
            self.lib.moonshine_free_stream(self.handle, stream)
        return course.heard()

    def _update(self, stream: int, course: _LiveCourse) -> None:
        answer = self.answer()
        self.check(
            self.lib.moonshine_transcribe_stream(self.handle, stream, 0, ctypes.byref(answer))
        )
        course.texts = []
        for line, text in self.lines(answer):
            if line.has_text_changed:
                course.change(line.id, text, final=bool(line.is_complete))
            course.texts.append(text)


class _LiveCourse:
    """Counts the changes of lines."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        """Those of the last transcript."""
        self._partials = 0
        self._shown = Shown()

    def change(self, ident: int, text: str, *, final: bool) -> None:
        self._partials += not final
        self._shown.show(ident, text)

    def heard(self) -> Heard:
        return Heard(
            text=" ".join(self.texts),
            partials=self._partials,
            rewrites=self._shown.rewrites,
            words_taken_back=self._shown.words_taken_back,
            finals=len(self.texts),
        )


@contextmanager
def peers(model: InstalledModel) -> Iterator[list[Subject]]:
    """Load the peers that are installed, and say which are not."""
    files = {role: model.dir / file.path for role, file in model.manifest.files.items()}
    subjects: list[Subject] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            subjects.append(Sherpa(files, write_tokens(files["tokenizer"], Path(folder))))
        except ImportError:
            print("sherpa-onnx is not installed: left out", file=sys.stderr)
        try:
            from moonshine_voice.moonshine_api import ModelArch
            from moonshine_voice.transcriber import Transcriber
        except ImportError:
            print("moonshine-voice is not installed: left out", file=sys.stderr)
        else:

            def load() -> Any:
                return Transcriber(str(model.dir), ModelArch.TINY)

            subjects += [MoonshineVoiceWhole(load), MoonshineVoiceLive(load())]
        yield subjects


def write_tokens(tokenizer: Path, folder: Path) -> Path:
    """Write a tokenizer as sherpa-onnx reads it: each line a token in base64, and its id."""
    path = folder / "tokens.txt"
    pieces = Tokenizer(tokenizer)._tokens
    lines = (f"{base64.b64encode(piece).decode()} {at}\n" for at, piece in enumerate(pieces))
    path.write_text("".join(lines), encoding="ascii")
    return path


def report(found: list[Figures]) -> list[str]:
    """Return the table."""
    by_name = {each.name: each for each in found}

    def ratio(each: Figures, peer: str) -> str:
        if peer not in by_name or each.name.split()[-1] != peer.split()[-1]:
            return ""
        return f"×{each.cpu_s_per_s / by_name[peer].cpu_s_per_s:.3f}"

    header = ["subject", "CPU s per s", "of sherpa", "of m-v live", "word error rate, %"]
    rows = [[*header, "errors / words", "partials", "rewrites", "words taken back"]]
    for each in found:
        errors = each.word_errors
        live = each.name.endswith("live")
        counts = [each.counts.partials, each.counts.rewrites, each.counts.words_taken_back]
        rows.append(
            [
                each.name,
                f"{each.cpu_s_per_s:.4f}",
                ratio(each, SHERPA),
                ratio(each, MOONSHINE),
                errors.percent if errors else "–",
                errors_cell(errors),
                *(str(count) if live else "" for count in counts),
            ]
        )
    return table(rows)


def main() -> None:
    """Read the words of the command line and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("list", type=Path)
    parser.add_argument("--limit", type=int, help="take so many recordings, evenly over the list")
    parser.add_argument("--repeat", type=int, default=1, help="rounds, of which medians are taken")
    parser.add_argument(
        "--model", action="append", default=[], help="a harkd package, by name or path; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    words = parser.parse_args()
    try:
        compare(words)
    except HarkdError as error:
        sys.exit(f"peers.py: {error}")


def compare(words: argparse.Namespace) -> None:
    """Measure, and print."""
    recordings = spread(read_list(words.list), words.limit)
    machine = this_machine()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = Settings()
    store = store_of(settings)
    base = store.locate(BASE)
    with peers(base) as subjects:
        for each in [base, *(store.locate(name) for name in words.model)]:
            recognizer = load_recognizer(each.dir, each.manifest, 1)
            name = f"harkd {each.dir.name}"
            subjects += [
                Whole(f"{name} whole", recognizer),
                Live(f"{name} live", recognizer, settings),
            ]
        timed = measure(subjects, recordings, repeat=words.repeat)
    normalizer = load_normalizer("en")
    found = figures_of([each.name for each in subjects], timed, normalizer)
    if words.json:
        result = {"machine": machine, "subjects": [replace(each, compared=None) for each in found]}
        print(msgspec.json.format(msgspec.json.encode(result)).decode())
        return
    total = found[0].categories[ALL]
    print(f"{machine}; pinned to one core")
    print(", ".join(f"{name} {installed(name)}" for name in ("sherpa-onnx", "moonshine-voice")))
    print(f"{total.recordings} recordings, {total.audio_s:.0f} s, {words.repeat} round(s)\n")
    print("\n".join(report(found)))
    if normalizer is None:
        print(MISSING)


if __name__ == "__main__":
    main()
