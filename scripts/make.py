"""Compile what is compiled: hivemind-init for each machine, and the wire's code from its contract.

Usage: python scripts/make.py [--check]   (--check compiles elsewhere and compares with what is checked in)
"""

from __future__ import annotations

import sys

import proto

from hivemind_worker.runtime.capsule.init import build


def main(arguments: list[str]) -> int:
    """Compile, or with --check compare; 0 when all went well."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    checking = arguments == ["--check"]
    codes = [build.main(arguments), proto.main(["check" if checking else "generate"])]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
