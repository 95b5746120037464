"""Links between the documents lead somewhere: to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "convert").rglob("*.md"),
]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"(?<![\w/])docs/[\w-]+\.(?:md|json|svg)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.M | re.S)


def anchors(document: Path) -> set[str]:
    """What can stand behind the # of a link to a document, as GitHub makes it of the headings.

    Or of an `<a id="…">`.
    """
    fenced = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = set(re.findall(r'<a id="([^"]+)">', fenced))
    for heading in re.findall(r"^#+ (.+)$", fenced, re.M):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = sum(re.sub(r"-\d+$", "", each) == slug for each in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    text = CODE.sub("", document.read_text(encoding="utf-8"))
    for path, anchor in LINK.findall(text):
        target = document.parent / path if path else document
        assert target.exists(), f"{path}: no such file"
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}: no such heading"


def test_every_document_that_code_names_is_there() -> None:
    files = [*(ROOT / "daemon").rglob("*.py"), *(ROOT / "config").glob("*.yaml")]
    named = {name: file for file in files for name in NAMED.findall(file.read_text("utf-8"))}
    assert {name: file for name, file in named.items() if not (ROOT / name).exists()} == {}
    assert named
