"""The error tree as it is drawn is the error tree there is."""

from __future__ import annotations

import importlib
import pkgutil
import re

import hivemind_worker
from hivemind_worker import errors


def drawn() -> dict[str, str]:
    """Each error's name and its parent's, as the picture has them."""
    found: dict[str, str] = {}
    path = ["HiveMindError"]
    for line in (errors.__doc__ or "").splitlines():
        if (branch := re.search(r"[├└]── ([A-Za-z]+)", line)) is None:
            continue
        depth = (branch.start() - 4) // 4
        path = [*path[: depth + 1], branch[1]]
        found[branch[1]] = path[depth]
    return found


def there() -> dict[str, str]:
    """Each error's name and its parent's, in every module of the package."""
    for module in pkgutil.walk_packages(hivemind_worker.__path__, "hivemind_worker."):
        if not module.name.endswith((".__main__", ".build")):
            importlib.import_module(module.name)
    found: dict[str, str] = {}
    beneath = [errors.HiveMindError]
    while beneath:
        for kind in beneath.pop().__subclasses__():
            if kind.__module__.startswith("hivemind_worker."):
                found[kind.__name__] = kind.__base__.__name__ if kind.__base__ else ""
                beneath.append(kind)
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    assert len(there()) > 15
    assert drawn() == there()
