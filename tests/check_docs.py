#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""What is written is whole: no merge has left its marks, links lead somewhere, and the manual pages
are understood by mandoc."""
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README.md", "meson.build", "docs/**/*", "guest/**/*", "bridge/**/*", "fs/**/*",
         "tests/**/*")
MARK = re.compile(rb"^(<<<<<<<|=======|>>>>>>>)( |$)", re.M)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
PAGES = ("docs/hypermemfs.1", "fs/python/hypermem-run.1")
# A page of section 1 may tell of errors nevertheless, in the order of those that do.
ALLOWED = ("unexpected section: Sh ERRORS", "sections out of conventional order: Sh DIAGNOSTICS")


def marks() -> Iterator[str]:
    paths = sorted(path for pattern in TEXTS for path in ROOT.glob(pattern) if path.is_file())
    for path in paths:
        for mark in MARK.finditer(path.read_bytes()):
            yield f"{path.relative_to(ROOT)}: {mark[0].decode()}"


def dead_links() -> Iterator[str]:
    for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]:
        for link in LINK.findall(path.read_text()):
            if not (path.parent / link).exists():
                yield f"{path.relative_to(ROOT)}: {link} is not there"


def warnings() -> Iterator[str]:
    try:
        done = subprocess.run(["mandoc", "-T", "lint", *PAGES], cwd=ROOT, capture_output=True,
                              text=True)
    except FileNotFoundError:
        print("mandoc is not installed: manual pages are not looked at", file=sys.stderr)
        return
    for line in done.stdout.splitlines():
        wrong = re.search(r" (WARNING|ERROR|UNSUPP): ", line)
        if wrong and not any(text in line for text in ALLOWED):
            yield line


def main() -> int:
    wrong = [*marks(), *dead_links(), *warnings()]
    for line in wrong:
        print(line)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
