#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The version is the same wherever it is written down."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Each tool reads its own file, so there is no one place for it.
PLACES = {
    "meson.build": r"^  version: '(.*)',$",
    "guest/ops.h": r'^#define HYPERMEM_MODULE_VERSION\t"(.*)"$',
    "guest/dkms.conf": r'^PACKAGE_VERSION="(.*)"$',
    "fs/python/pyproject.toml": r'^version = "(.*)"$',
    "docs/guests.md": r"\bhypermem[/-](\d+(?:\.\d+)+)\b",
}


def main() -> int:
    said = {place: set(re.findall(pattern, (ROOT / place).read_text(), re.M))
            for place, pattern in PLACES.items()}
    if all(len(versions) == 1 for versions in said.values()) and \
            len(set.union(*said.values())) == 1:
        return 0
    for place, versions in said.items():
        print(f"{place}: {' '.join(sorted(versions)) or 'no version'}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
