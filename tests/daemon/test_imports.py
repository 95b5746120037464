"""Who may import whom: lower layers know nothing of higher ones, and the start stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harkd

PACKAGE = Path(harkd.__file__).parent
LAYERS = [
    # What everybody may know.
    {"harkd", "errors", "events"},
    # Pure, and the settings; the recognizer's protocol is types alone.
    {
        "settings",
        "settings_file",
        "settings_leaf",
        "settings_inputs",
        "mqtt_settings",
        "mqtt_address",
        "doctor_check",
        "model_package",
        "memory_need",
        "messages",
        "final_messages",
        "counters",
        "commands",
        "live_settings",
        "discovery",
        "hermes",
        "hermes_session",
        "wake_gate",
        "redaction",
        "whole_file",
        "verdict",
        "hotword_list",
        "number_words",
        "text_style",
        "stability",
        "endpointing",
        "logs",
        "threads",
        "turns",
        "stopper",
        "transcript_formats",
        "interruption",
        "entry",
        "life",
        "histogram",
        "status_report",
        "service_files",
        "service_status",
    }
    | {"recognizer", "recognizer.protocol"}
    | {"recognizer.device_report", "recognizer.device_faults"}
    | {"phrases", "settings_phrases", "phrases.template", "phrases.spoken", "phrases.numbers"}
    | {"phrases.builder", "phrases.graph", "phrases.tables", "phrases.source", "phrases.checking"}
    | {"phrases.compiling", "phrases.file", "phrases.file_nodes", "phrases.file_lists"}
    | {"phrases.sent"},
    # Edges: each wraps one thing of the world.
    {"capture", "device_probe", "devices", "audio", "microphone", "segmenter", "segment"}
    | {"wake_word", "wake_models", "waking"}
    | {"signal_level", "overruns", "all_zero", "following"}
    | {"capture_process", "capture_stream", "capture_choice", "capture_errors"}
    | {"sound_server", "sound_login", "alsa_open", "container"}
    | {"muting", "kept_options", "kept_phrases", "phrase_book"}
    | {"phrases.loading"}
    | {"signal_processing", "recent_utterances"}
    | {"second_look", "recognizer.silero"}
    | {"recognizer.factory", "recognizer.moonshine", "recognizer.onnx"}
    | {"recognizer.moonshine_lean", "recognizer.lean_encoder", "recognizer.lean_decoder"}
    | {"recognizer.moonshine_tokens", "recognizer.cuda", "recognizer.placement"}
    | {"recognizer.lean_stream", "recognizer.moonshine_streaming", "recognizer.streaming_encoder"}
    | {"recognizer.encoding", "recognizer.second_hearing"}
    | {"recognizer.ctc", "recognizer.transducer", "recognizer.search", "recognizer.symbols"}
    | {"recognizer.chunk_layout", "recognizer.chunk_buffers", "recognizer.chunk_encoder"}
    | {"recognizer.chunk_model"}
    | {"recognizer.chunk_stream", "recognizer.fbank"}
    | {"recognizer.beam_search", "recognizer.hotwords", "recognizer.ctc_beam"}
    | {"recognizer.hotword_rescoring", "recognizer.spelling", "recognizer.extra_output"}
    | {"recognizer.phrase_letters", "recognizer.phrase_numbers", "recognizer.phrase_tokens"}
    | {"recognizer.phrase_search", "recognizer.phrase_scorer"}
    | {"recognizer.phrase_nearest", "recognizer.phrase_candidates", "recognizer.ctc_phrases"}
    | {"recognizer.phrase_scores"}
    | {"recognizer.lean_continuations", "recognizer.moonshine_continuations"}
    | {"model_catalogue", "model_store", "model_import", "bundled_models", "sherpa_package"}
    | {"memory", "memory_check"}
    | {"mqtt_tls", "mqtt_failures", "mqtt_client", "mqtt_connection", "mqtt_reports"}
    | {"publisher", "broker"}
    | {"outbox", "outbox_file", "outbox_errors", "boot_time"}
    | {"delivery", "delivery_sides", "final_sender"}
    | {"announcing", "hermes_answering"}
    | {"http_server", "service_manager", "daemon_client", "status_feed"}
    | {"status_view"}
    | {"sound_files", "transcript_files"}
    | {"speech_list", "bench_words", "bench_machine"}
    | {"service_steps", "service_home", "service_needs"},
    {"pipeline", "listening", "recognizing", "recognition", "phrase_matching", "virtual_time"}
    | {"sinks", "transcribe", "transcribe_many"}
    | {"control", "answers", "phrase_commands", "health", "debug_capture"}
    | {"vitals", "metrics", "overload"}
    | {"bench_measure", "bench_whole", "bench_live", "bench_realtime", "bench_start"}
    | {"bench_report", "bench_plot", "bench_memory"},
    {"app", "inputs", "instruments", "legacy_state", "mqtt_side"}
    | {"doctor", "doctor_broker", "doctor_container", "doctor_device", "doctor_memory"}
    | {"doctor_speed", "doctor_voice", "bench_run"},
    {"cli", "cli_bench", "cli_config", "cli_doctor", "cli_models", "cli_progress"}
    | {"cli_transcribe", "cli_health", "cli_phrases", "cli_service", "cli_status"}
    | {"__main__"},
]
LAYER_OF = {module: number for number, layer in enumerate(LAYERS, 1) for module in sorted(layer)}
HEAVY = {
    "kaldi_native_fbank",
    "numpy",
    "onnxruntime",
    "torch",
    "soxr",
    "sounddevice",
    "soundfile",
    "paho",
    "amqtt",
}


def modules() -> dict[str, Path]:
    """Every module of the package, named without ``harkd.``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        found[name or "harkd"] = path
    return found


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """The modules of the package that a file imports anywhere in it, with the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module
            # `from harkd import app` imports a module, `from harkd import __version__` does not.
            inner = [f"{node.module}.{each.name}" for each in node.names]
            names = [name for name in inner if name.removeprefix("harkd.") in modules()]
            names = names or [node.module]
        else:
            continue
        for name in names:
            if name == "harkd" or name.startswith("harkd."):
                yield name.removeprefix("harkd."), node.lineno


def test_every_module_has_its_place() -> None:
    assert set(modules()) == set(LAYER_OF)


@pytest.mark.parametrize("module", [name for name in LAYER_OF if name in modules()])
def test_a_module_imports_nothing_from_a_higher_layer(module: str) -> None:
    path = modules()[module]
    higher = [
        f"line {line} imports {name} (layer {LAYER_OF[name]})"
        for name, line in imported(path)
        if LAYER_OF[name] > LAYER_OF[module]
    ]
    assert not higher, f"{module} (layer {LAYER_OF[module]}): {', '.join(higher)}"


def test_the_test_sees_imports_within_functions_and_of_modules_from_the_package() -> None:
    assert "recognizer.factory" in {name for name, _ in imported(PACKAGE / "app.py")}
    assert "app" in {name for name, _ in imported(PACKAGE / "doctor.py")}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that are loaded once a statement has run."""
    script = (
        f"import sys, json\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
        "print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, timeout=30
    )
    return {name.split(".")[0] for name in json.loads(done.stderr)}


def test_importing_harkd_loads_nothing_but_itself() -> None:
    outside = loaded_by("pass")
    assert loaded_by("import harkd") - outside == {"harkd"}


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["run", "--help"], ["transcribe", "--help"], ["bench", "--help"]],
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    statement = f"sys.argv = ['harkd', *{words!r}]; from harkd.cli import main; main()"
    assert not loaded_by(statement) & HEAVY


# ----------------------------------------------------------------------------- the converter

CONVERT = Path(__file__).parents[2] / "convert" / "harkd_convert"
CONVERT_MAY_IMPORT = {
    "harkd",  # the version, which packages tell
    "errors",
    "entry",  # its command line ends as the daemon's does,
    "interruption",  # also at a signal
    "model_package",
    "recognizer",  # what runs a package is also what tries it
    "audio",  # recordings are to be heard as the daemon hears them
    "speech_list",  # `verify` takes the lists of `harkd bench`,
    "bench_words",  # and counts word errors in the same way
    "bench_measure",
    "bench_plot",  # pictures have the same kinds,
    "sound_files",  # and folders are searched alike
    "bench_memory",  # what a package takes is measured as the daemon's own models are,
    "memory_need",  # and written where the daemon looks for it
}
"""The modules of harkd that the converter builds on."""


def named_imports(path: Path) -> set[str]:
    """The top-level packages that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    plain = {each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.split(".")[0] for name in plain | named}


@pytest.mark.parametrize("path", sorted(CONVERT.rglob("*.py")), ids=lambda path: path.stem)
def test_the_converter_imports_no_more_of_harkd_than_it_may(path: Path) -> None:
    used = {name.split(".")[0] for name, _ in imported(path)}
    assert used <= CONVERT_MAY_IMPORT, f"{path.name} imports {used - CONVERT_MAY_IMPORT} of harkd"


@pytest.mark.parametrize("path", sorted(CONVERT.rglob("*.py")), ids=lambda path: path.stem)
def test_the_converter_gets_onnxruntime_from_the_daemon_alone(path: Path) -> None:
    """That module keeps it from phoning home."""
    assert "onnxruntime" not in named_imports(path)


def test_the_daemon_knows_nothing_of_the_converter() -> None:
    knowing = [name for name, path in modules().items() if "harkd_convert" in named_imports(path)]
    assert not knowing


@pytest.mark.parametrize(
    "words", [["--help"], ["moonshine", "--help"], ["streaming", "--help"], ["verify", "--help"]]
)
def test_the_converters_help_loads_nothing_heavy(words: list[str]) -> None:
    statement = (
        f"sys.path.insert(0, {str(CONVERT.parent)!r}); sys.argv = ['harkd-convert', *{words!r}]; "
        "from harkd_convert.cli import main; main()"
    )
    assert not loaded_by(statement) & (HEAVY | {"onnx", "safetensors"})


def test_opening_a_published_model_needs_no_pytorch() -> None:
    statement = f"sys.path.insert(0, {str(CONVERT.parent)!r}); import harkd_convert.sources"
    assert not loaded_by(statement) & {"torch", "onnxruntime", "transformers"}
