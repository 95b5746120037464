"""Makes a manifest for an unpacked streaming model of sherpa-onnx, or says why there is none.

In: a folder with `tokens.txt` and ONNX files. Out: a `Manifest`. What kind of model it is is read
from the graph's metadata, never guessed from names; which file is which, of the names that
sherpa-onnx publishes: an `encoder…`, a `decoder…` and a `joiner…`, or one model. Reads only; runs
on the caller's thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from harkd.errors import HarkdError, ModelError
from harkd.model_package import Limits, Manifest, PackagedFile, sha256_of

TOKENS = "tokens.txt"
TRANSDUCER_ROLES = ("encoder", "decoder", "joiner")
SPELLING_FILES = {"bpe_model": "bpe.model", "bpe_vocab": "bpe.vocab"}
"""How words are cut into tokens; taken along where they are there."""
LICENCE_FILES = ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md")
LONGEST_S = 120.0
"""A stream costs the same at any length; so long an utterance is none."""
LANGUAGE_TAGS = """
ar bn ca cs da de el en es et eu fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl
sr sv ta te th tr uk ur uz vi yue zh
"""
"""A part of a published folder's name that is one of these tells its language."""
MEND = "`harkd models import --help` tells what can be imported"


@dataclass(frozen=True)
class _Card:
    """What the model's README tells in its front matter."""

    languages: tuple[str, ...] = ()
    licence: str = ""


def looks_published(folder: Path) -> bool:
    """Tell whether a folder holds what sherpa-onnx publishes."""
    return (folder / TOKENS).is_file() and any(folder.glob("*.onnx"))


def manifest_of(folder: Path, languages: tuple[str, ...] = ()) -> Manifest:
    """Return a manifest for what lies in a folder.

    Args:
        folder: The unpacked model.
        languages: BCP 47 tags of its languages; looked for in its README and its name if omitted.

    Raises:
        ModelError: It is no streaming model that is known; says why.
        OSError: A file cannot be read.
    """
    files = _files(folder)
    kind, chunk_s, frame_s = _layout(files[next(iter(files))], transducer="joiner" in files)
    card = _card(folder / "README.md")
    languages = languages or card.languages or _named_languages(folder.name)
    if not languages:
        raise ModelError(
            f"neither the name of {folder} nor a README.md in it tells its language",
            "Name it with --language, such as --language en",
        )
    licence_file = next((name for name in LICENCE_FILES if (folder / name).is_file()), "LICENSE")
    return Manifest(
        name=re.sub(r"[^a-z0-9._-]+", "-", folder.name.lower()).strip(".-_") or "streaming",
        family="streaming-transducer" if "joiner" in files else "streaming-ctc",
        version="1",
        languages=languages,
        licence=card.licence or "NOASSERTION",
        licence_file=licence_file,
        source=f"published for sherpa-onnx as {folder.name}",
        files={
            role: PackagedFile(
                path=path.name, sha256=sha256_of(path), size_bytes=path.stat().st_size
            )
            for role, path in files.items()
        },
        limits=Limits(max_segment_s=LONGEST_S),
        measured={"layout": kind, "chunk_s": round(chunk_s, 3), "frame_s": round(frame_s, 3)},
    )


def _files(folder: Path) -> dict[str, Path]:
    """Return the files by role, the encoder first and the tokens last of those that all have."""
    models = sorted(folder.glob("*.onnx"))
    found = {
        role: _chosen(folder, role, [path for path in models if role in _parts(path)])
        for role in TRANSDUCER_ROLES
    }
    chosen = {role: path for role, path in found.items() if path}
    if chosen and len(chosen) < len(TRANSDUCER_ROLES):
        absent = [role for role in TRANSDUCER_ROLES if role not in chosen]
        raise ModelError(
            f"{folder} has {_named(list(chosen.values()))}, but no {' and no '.join(absent)}: "
            "it is no streaming transducer",
            MEND,
        )
    if not chosen:
        only = _chosen(folder, "model", models)
        if not only:
            raise ModelError(f"{folder} has no ONNX file", MEND)
        chosen = {"model": only}
    chosen["tokens"] = folder / TOKENS
    for role, name in SPELLING_FILES.items():
        if (folder / name).is_file():
            chosen[role] = folder / name
    return chosen


def _chosen(folder: Path, role: str, paths: list[Path]) -> Path | None:
    """Return the one file of a role; of two precisions int8, which is faster.

    Raises:
        ModelError: There are several.
    """
    usable = [path for path in paths if "fp16" not in _parts(path)]
    int8 = [path for path in usable if "int8" in _parts(path)]
    # A decoder is a table; quantized it is no faster.
    preferred = [path for path in usable if path not in int8] if role == "decoder" else int8
    candidates = preferred or usable
    if len(candidates) > 1:
        raise ModelError(
            f"{folder} has several files that could be its {role}: {_named(candidates)}",
            "Import from a folder with one of each",
        )
    return candidates[0] if candidates else None


def _parts(path: Path) -> list[str]:
    """Return the words of a file's name, such as encoder, epoch, 99, int8."""
    return re.split(r"[-._]", path.name.lower())


def _named(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _layout(path: Path, *, transducer: bool) -> tuple[str, float, float]:
    """Return what kind of encoder it is, and the seconds of a chunk and of a frame."""
    # onnxruntime comes with them, which no other command of `harkd models` needs.
    from harkd.recognizer.chunk_encoder import ChunkEncoder
    from harkd.recognizer.chunk_layout import CTC_ONLY, UnknownLayoutError

    try:
        encoder = ChunkEncoder(path, 1)
    except UnknownLayoutError as error:
        raise ModelError(
            f"{path} is no streaming model that harkd knows: it {error}", MEND
        ) from error
    except HarkdError as error:
        raise ModelError(error.message, MEND) from error
    kind = encoder.layout.kind
    if transducer and kind in CTC_ONLY:
        raise ModelError(
            f"{path} is a {kind} with a joiner; NeMo's transducers are not known to harkd", MEND
        )
    return kind, encoder.chunk_s, encoder.frame_s


def _card(path: Path) -> _Card:
    """Read the front matter of a model card; what is not there, or not readable, is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return _Card()
    matter = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        found = yaml.safe_load(matter[1]) if matter else None
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        return _Card()
    languages = found.get("language") or ()
    listed = [languages] if isinstance(languages, str) else languages
    licence = found.get("license")
    return _Card(
        tuple(str(each) for each in listed) if isinstance(listed, list) else (),
        licence if isinstance(licence, str) else "",
    )


def _named_languages(name: str) -> tuple[str, ...]:
    """Return the languages in a name such as `…-zipformer-bilingual-zh-en-2023-02-20`."""
    known = LANGUAGE_TAGS.split()
    return tuple(part for part in re.split(r"[-_.]", name.lower()) if part in known)
