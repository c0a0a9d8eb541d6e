"""What a checkpoint says of a sandbox, so that the next worker finds it again; for `sandbox_executor`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hivemind_worker.runtime import slots
from hivemind_worker.runtime.sandbox import limits, outliving, workspaces

NAME, PID, WORKSPACE, GROUPS = "sandbox", "pid", "workspace", "groups"


def token(
    sandbox: outliving.Sandbox, workspace: workspaces.Workspace | None, group: limits.Group | None, slot: int | None
) -> Mapping[str, str]:
    """Return what the next worker needs to find it all again."""
    groups = {} if group is None else {name: str(folder) for name, folder in group.folders.items()}
    folder = "" if workspace is None else str(workspace.folder)
    return {NAME: sandbox.name, PID: str(sandbox.pid), WORKSPACE: folder, GROUPS: json.dumps(groups),
            slots.KEY: str(slot)}  # fmt: skip
