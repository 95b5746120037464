"""Whether a model fits into what is free, and what is said where it does not."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from harkd import memory_check
from harkd.cli_config import config as config_command
from harkd.cli_models import models as models_command
from harkd.errors import ModelTooLargeError
from harkd.memory import Kind, Room
from harkd.memory_check import judge, require_memory
from harkd.memory_need import FIGURES, MB, REST_MB, Need, estimate, need_of
from harkd.model_catalogue import CATALOGUE
from harkd.model_import import import_package
from harkd.model_package import Manifest, PackagedFile, write_manifest
from harkd.model_store import ModelStore
from harkd.settings import EndpointSettings, ModelsSettings, RecognizerSettings, Settings

pytestmark = pytest.mark.usefixtures("nothing_bundled")

TRAINED = Path(__file__).parents[1] / "data" / "an4-en"
NEED = Need(least_bytes=200 * MB, most_bytes=300 * MB, own_bytes=180 * MB)
TINY = CATALOGUE["moonshine-tiny-en"].manifest
BASE = CATALOGUE["moonshine-base-en"].manifest


def machine(free_mb: int, swap_mb: int = 0) -> Room:
    return Room(Kind.MACHINE, 4000 * MB, free_mb * MB, swap_mb * MB, setting="MemAvailable")


def container(free_mb: int, where: str = "/", *, soft: bool = False) -> Room:
    return Room(Kind.CGROUP, 512 * MB, free_mb * MB, 0, where, "memory.max", soft)


# ----------------------------------------------------------------------------- the need


def manifest(size_mb: float, family: str = "moonshine", **more: object) -> Manifest:
    file = PackagedFile(path="one", sha256="0" * 64, size_bytes=round(size_mb * MB))
    about = {
        "name": "m",
        "version": "1",
        "languages": ("en",),
        "licence": "MIT",
        "licence_file": "one",
    }
    return Manifest(family=family, files={"one": file}, **(about | more))  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FIGURES)
def test_a_model_that_was_measured_needs_what_was_measured(family: str) -> None:
    for size_mb, figures in FIGURES[family]:
        assert estimate(family, size_mb) == figures


@pytest.mark.parametrize("family", FIGURES)
def test_a_larger_model_of_a_family_needs_no_less_to_load(family: str) -> None:
    sizes = [1.0, 3, 10, 30, 44, 50, 60, 80, 100, 200, 400, 1000]
    found = [estimate(family, size) for size in sizes]
    loads = [each.load_mb for each in found if each]
    assert len(loads) == len(sizes)
    assert loads == sorted(loads)
    assert min(loads) >= 0


def test_of_a_family_that_nobody_has_measured_no_need_is_known() -> None:
    assert need_of(manifest(10, "other"), EndpointSettings()) is None


def test_what_the_manifest_tells_wins_over_the_estimate() -> None:
    told = {"memory": {"load_mb": 10, "loaded_mb": 8.0, "base_mb": 8, "per_s_mb": 1}}
    need = need_of(manifest(10, "other", measured=told), EndpointSettings(max_utterance_s=10))
    assert need
    assert need.least_bytes == (18 + REST_MB) * MB


@pytest.mark.parametrize(
    "told",
    [5, None, {}, {"load_mb": 1}]
    + [dict.fromkeys(("load_mb", "loaded_mb", "base_mb", "per_s_mb"), odd) for odd in ("x", -1)],
)
def test_figures_of_a_manifest_that_are_none_are_passed_over(told: object) -> None:
    odd, plain = manifest(44, measured={"memory": told}), manifest(44)
    assert need_of(odd, EndpointSettings()) == need_of(plain, EndpointSettings())


def test_the_need_grows_with_the_utterance_up_to_what_the_model_takes() -> None:
    def least(seconds: float) -> int:
        need = need_of(TINY, EndpointSettings(max_utterance_s=seconds))
        return need.least_bytes if need else 0

    assert least(2) == least(5), "loading takes more"
    assert least(8) < least(15) < least(30) == least(60)


def test_more_utterances_at_once_need_more_at_most() -> None:
    one = need_of(TINY, EndpointSettings())
    four = need_of(TINY, EndpointSettings(), streams=4)
    assert one
    assert four
    assert one.least_bytes == one.most_bytes == four.least_bytes < four.most_bytes


# ----------------------------------------------------------------------------- the comparison


def test_a_model_fits_where_a_fifth_more_is_free() -> None:
    verdict = judge(NEED, [machine(370)])
    assert (verdict.too_little, verdict.close) == (False, False)
    assert str(verdict) == "needs 200 MB more, 370 MB are free on this machine of 4000 MB"


def test_the_limit_that_leaves_least_is_named() -> None:
    verdict = judge(NEED, [machine(900), container(150), container(170, "/outer")])
    assert verdict.too_little
    assert str(verdict) == (
        "needs 200 MB more, 150 MB are free in this container (memory.max: 512 MB)"
    )


def test_swap_keeps_a_model_from_being_refused_but_is_told() -> None:
    verdict = judge(NEED, [machine(150, swap_mb=100)])
    assert (verdict.too_little, verdict.close) == (False, True)
    assert "150 MB and 100 MB of swap are free" in str(verdict)
    assert judge(NEED, [machine(150, swap_mb=40)]).too_little


def test_what_many_utterances_at_once_would_need_is_no_reason_to_refuse_but_to_tell() -> None:
    verdict = judge(NEED, [machine(350)])
    assert (verdict.too_little, verdict.close) == (False, True)
    assert str(verdict).startswith("needs 300 MB more, 350 MB are free")


def test_a_soft_limit_refuses_nothing() -> None:
    verdict = judge(NEED, [machine(900), container(10, soft=True)])
    assert (verdict.too_little, verdict.close) == (False, True)


@pytest.mark.parametrize("kind", [Kind.ADDRESSES, Kind.DATA])
def test_limits_of_the_process_need_not_hold_the_capture_process(kind: Kind) -> None:
    assert judge(NEED, [Room(kind, 0, 179 * MB)]).too_little
    assert not judge(NEED, [Room(kind, 0, 180 * MB)]).too_little


def test_where_nothing_is_known_a_model_fits() -> None:
    assert not judge(None, [machine(1)]).too_little
    assert not judge(NEED, []).too_little


# ----------------------------------------------------------------------------- what is said


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    found: list[Room] = []
    monkeypatch.setattr(memory_check, "rooms", lambda: found)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models=ModelsSettings(dir=str(tmp_path)))


def install(store: Path, model: Manifest) -> None:
    folder = store / model.name
    folder.mkdir(parents=True)
    for file in model.all_files():
        (folder / file.path).parent.mkdir(exist_ok=True)
        with (folder / file.path).open("wb") as out:
            out.truncate(file.size_bytes)
    write_manifest(folder, model)


def refusal(model: Manifest, settings: Settings) -> ModelTooLargeError:
    with pytest.raises(ModelTooLargeError) as caught:
        require_memory(model, settings)
    return caught.value


def test_a_smaller_model_that_is_installed_is_proposed_first(
    free: list[Room], settings: Settings, tmp_path: Path
) -> None:
    install(tmp_path, TINY)
    free.append(machine(400))
    error = refusal(BASE, settings)
    assert "moonshine-base-en needs 684 MB more, 400 MB are free on this machine" in error.message
    assert error.mend.startswith("set recognizer.model: moonshine-tiny-en, which is installed")


def test_else_one_that_can_be_pulled(free: list[Room], settings: Settings) -> None:
    free.append(machine(400))
    assert refusal(BASE, settings).mend.startswith(
        "run `harkd models pull moonshine-tiny-en` and set recognizer.model: moonshine-tiny-en"
    )


def test_no_model_is_proposed_that_would_not_fit_or_speaks_another_language(
    free: list[Room], settings: Settings, tmp_path: Path
) -> None:
    install(tmp_path, manifest(4, "streaming-ctc", name="small-de", languages=("de",)))
    free.append(machine(100))
    assert refusal(BASE, settings).mend == (
        "close other programs; recognizer.check_memory: false lets it try all the same"
    )


def test_shorter_utterances_are_proposed_where_they_are_enough(
    free: list[Room], settings: Settings
) -> None:
    free.append(machine(210))
    mend = refusal(TINY, settings).mend
    seconds = float(mend.partition("set endpoint.max_utterance_s: ")[2].partition(",")[0])
    shorter = replace(settings, endpoint=EndpointSettings(max_utterance_s=seconds))
    require_memory(TINY, shorter)
    shorter = replace(settings, endpoint=EndpointSettings(max_utterance_s=seconds + 1))
    refusal(TINY, shorter)


@pytest.mark.parametrize(
    ("room", "says"),
    [
        (container(50), "give the container more (--memory"),
        (container(50, "/system.slice/harkd.service"), "raise MemoryMax= of harkd.service"),
        (container(50, "/system.slice/docker-1.scope"), "give the container more"),
        (Room(Kind.ADDRESSES, 0, 0, setting="RLIMIT_AS"), "LimitAS= in systemd"),
        (Room(Kind.DATA, 0, 0, setting="RLIMIT_DATA"), "LimitDATA= in systemd"),
        (Room(Kind.DATA, 0, 0, setting="vm.overcommit_memory"), "vm.overcommit_memory"),
    ],
)
def test_how_the_limit_is_raised_is_told(
    free: list[Room], settings: Settings, room: Room, says: str
) -> None:
    free.append(room)
    assert says in refusal(TINY, settings).mend


def test_little_room_is_one_warning(
    free: list[Room], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    free.append(machine(250))
    with caplog.at_level(logging.WARNING):
        require_memory(TINY, settings)
    (record,) = caplog.records
    assert "moonshine-tiny-en needs 246 MB more, 250 MB are free" in record.getMessage()


def test_phrases_need_some_besides(
    free: list[Room], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    free.append(machine(390))
    require_memory(TINY, settings, phrases=True)
    assert not caplog.records
    free[:] = [machine(310)]
    require_memory(TINY, settings, phrases=True)
    (record,) = caplog.records
    assert record.getMessage().endswith(", besides 50 MB for phrases")
    free[:] = [machine(270)]
    require_memory(TINY, settings)
    with pytest.raises(ModelTooLargeError, match="besides 50 MB for phrases"):
        require_memory(TINY, settings, phrases=True)


def test_the_check_can_be_switched_off(free: list[Room], settings: Settings) -> None:
    free.append(machine(1))
    require_memory(TINY, replace(settings, recognizer=RecognizerSettings(check_memory=False)))


def test_a_model_that_would_not_fit_is_imported_only_untried(
    free: list[Room], tmp_path: Path
) -> None:
    store = ModelStore(tmp_path)
    free.append(machine(20))
    with pytest.raises(ModelTooLargeError, match=r"it is not installed\. Install it untried"):
        import_package(store, TRAINED)
    assert store.installed() == []
    import_package(store, TRAINED, trial=False)
    assert [each.name for each in store.installed()] == ["an4-en"]


def test_config_check_tells_of_it_beside_the_faults_of_the_file(
    free: list[Room], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "models", TINY)
    monkeypatch.setenv("HARKD_MODELS", str(tmp_path / "models"))
    free.append(machine(100))
    (tmp_path / "harkd.yaml").write_text("recognizer: {model: moonshine-tiny-en}\n")
    done = CliRunner().invoke(config_command, ["check", str(tmp_path / "harkd.yaml")])
    assert done.exit_code == 0, "it is no fault of the file"
    assert "But here and now: not enough memory: the model moonshine-tiny-en" in done.stderr


def test_the_list_of_models_tells_what_each_needs_and_which_would_not_fit(
    free: list[Room], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, TINY)
    monkeypatch.setattr("harkd.cli_models.rooms", lambda: free)
    free.append(machine(400))
    done = CliRunner().invoke(models_command, ["--models-dir", str(tmp_path), "list"])
    header, tiny, base = done.output.splitlines()
    assert "MEMORY" in header
    assert "  246 MB  " in tiny
    assert "684 MB (too much)" in base
    done = CliRunner().invoke(models_command, ["--models-dir", str(tmp_path), "list", "--json"])
    assert [row["fits"] for row in json.loads(done.output)] == [True, False]
