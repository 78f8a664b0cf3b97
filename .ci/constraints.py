"""Print `name==version` for every package that lanewise and its dev extra need, as installed beside this interpreter.

Only the dependency closure is printed, so that whatever else was installed by hand is not pinned. Versions lose
their local part (2.13.0, not 2.13.0+cpu): the same pin then fits the CPU build and every CUDA build.
"""

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version


def closure(requirements: list[str]) -> dict[str, str]:
    """Map the canonical name of each package reachable from the requirements to its installed public version.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    versions: dict[str, str] = {}
    visited: set[tuple[str, str]] = set()
    pending = [(Requirement(text), "") for text in requirements]
    while pending:
        requirement, parent_extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = metadata.distribution(name)
        versions[name] = Version(distribution.version).public
        for extra in ("", *requirement.extras):
            if (name, extra) not in visited:
                visited.add((name, extra))
                pending += [(Requirement(text), extra) for text in distribution.requires or []]
    return versions


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    try:
        versions = closure(wanted)
    except metadata.PackageNotFoundError as missing:
        sys.exit(f"error: {missing.name} is not installed here; run 'make install' first")
    for name in sorted(versions):
        print(f"{name}=={versions[name]}")


if __name__ == "__main__":
    main()
