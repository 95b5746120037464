"""What the benchmarks of streaming models count."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from streaming_compared import compare, compare_segments, segments_of
from streaming_report import Utterance, lines_of, report_of
from streaming_subjects import Harkd, load_streaming, open_package, peers_of

import small_streaming
from fakes import silence, speech
from harkd.audio import RATE_HZ

AUDIO = np.concatenate([speech(2500), silence(400), speech(1100, seed=2)])
LAYOUTS = ["transducer zipformer2", "transducer conformer", "ctc zipformer2", "ctc wenet_ctc"]


def write(folder: Path, layout: str) -> Path:
    family, kind = layout.split()
    writer = {"transducer": small_streaming.write_transducer, "ctc": small_streaming.write_ctc}
    return writer[family](folder, kind)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_peer_hears_as_many_chunks_and_then_the_same(layout: str, tmp_path: Path) -> None:
    package = open_package(write(tmp_path / "model", layout))
    model = load_streaming(package)
    harkd, peers = Harkd(model), peers_of(package, model)
    for samples in (len(AUDIO), len(AUDIO) - 5000, 400):
        audio = AUDIO[:samples]
        assert peers[0].hear(audio).work.encoder_passes == harkd.hear(audio).work.encoder_passes > 0
    found = compare(harkd, peers[:1], [AUDIO, AUDIO[: RATE_HZ // 2]])
    assert found.equal[peers[0].name].tokens == 2
    # Of tokens such as <sos/eos>, which say nothing, it tells the names.
    said = [re.sub("<.*?>", "", text) for text in found.said[peers[0].name]]
    assert said == found.texts


def test_segments_are_cut_as_the_daemon_cuts_them(tmp_path: Path) -> None:
    package = open_package(write(tmp_path / "model", "ctc wenet_ctc"))
    model = load_streaming(package)
    pause = silence(1500)
    segments = segments_of(model, np.concatenate([speech(1500), pause, speech(1500, seed=2)]))
    assert len(segments) == 2
    for segment in segments:
        assert 1.5 < len(segment.audio) / RATE_HZ < 3
        assert Harkd(model).hear(segment.audio).text == segment.text != ""
    found = compare_segments(Harkd(model), peers_of(package, model)[:1], [AUDIO])
    assert found.segments is not None
    assert found.segments.texts == found.segments.tokens == found.segments.recordings > 0
    assert len(found.segmented) == 1


def final(ident: str, text: str, latency_ms: int) -> dict[str, object]:
    return {"id": ident, "text": text, "latency_ms": latency_ms}


def test_a_report_counts_finals_words_and_how_partials_grow() -> None:
    whole = Utterance("a", "One, five one")
    whole.finals = [final("1", "one five one", 600)]
    whole.partials = {"1": ["one", "one five", "one fire"]}
    twice = Utterance("b", "stop")
    twice.finals = [final("2", "st", 700), final("3", "op", 800)]
    twice.partials = {"2": ["st"]}
    nothing = Utterance("c", "no", rejected=["too_short"])
    found = report_of("here", "small", [whole, twice, nothing], None)
    assert found.finals_each == {0: 1, 1: 1, 2: 1}
    assert found.rejected == {"too_short": 1}
    assert (found.plain.words, found.plain.errors) == (5, 3)
    assert (found.plain.substitutions, found.plain.deletions, found.plain.insertions) == (1, 1, 1)
    assert found.whisper is not None
    assert found.whisper.words == 3, "one five one is a number"
    assert (found.partials_again, found.grown) == (2, 1)
    assert (found.finals_with_partials, found.finals_kept) == (2, 1)
    assert found.latency_ms is not None
    assert (found.latency_ms.p50, found.latency_ms.most) == (700, 800)
    assert "1 with 0, 1 with 1, 1 with 2" in "\n".join(lines_of(found))
