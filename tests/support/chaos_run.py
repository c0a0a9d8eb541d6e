"""A chaos run from outside: it is started in namespaces of its own, and judged once nothing of it lives any more."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import chaos
import chaos_keeper
import client_checker
import client_figures
import client_history
import left_processes
import neighbours
import test_engine

SUPPORT = Path(__file__).resolve().parent
HOME = SUPPORT.parent.parent

LOSSES = "losses.txt"
"""Each attempt that brought no end, with the blow that explains it, one a line."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to. ``violations``: by the store, by the clients, and what was left on the machine."""

    result: chaos.Result | None
    history: client_history.History
    violations: list[str]
    spinners: str = ""
    """What they had of the machine, where there were any."""

    @property
    def text(self) -> str:
        """In lines, for a person."""
        lines = [each for each in (self.result.text if self.result else "", self.spinners) if each]
        return "\n".join(
            [*lines, client_figures.figures(self.history).text, *(f"!! {each}" for each in self.violations)]
        )

    @property
    def good(self) -> bool:
        """Whether everything held, and the run came to its end."""
        return self.result is not None and not (self.violations or self.result.violations or self.result.complaints)


def run(terms: chaos.Terms, folder: Path) -> Verdict:
    """Run it, whatever becomes of it, and judge what is there afterwards."""
    (folder / "terms.json").write_text(json.dumps(dataclasses.asdict(terms)), encoding="utf-8")
    (folder / "tmp").mkdir()
    command = [sys.executable, str(HOME / "scripts" / "run_chaos.py"), "--inside", str(folder)]
    left: list[str] = []
    with neighbours.spinning(terms.spinners) as spinners:
        if chaos_keeper.possible():
            report = folder / "left.json"
            code = chaos_keeper.run(report, command, told_to_end=spinners.end)  # so that all else is ended soon
            left = json.loads(report.read_text(encoding="utf-8")) if report.exists() else ["no list of what is left"]
        else:
            code = subprocess.run(command, check=False).returncode
        spun = spinners.text if terms.spinners else ""
    left += _end_all(folder)
    path = folder / chaos.RESULT
    result = chaos.Result(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
    history_path = folder / chaos.HISTORY
    history = client_history.load(history_path) if history_path.exists() else client_history.History()
    history = dataclasses.replace(history, leftovers=(*history.leftovers, *left))
    losses = client_figures.figures(history).losses
    (folder / LOSSES).write_text("".join(f"{loss}\n" for loss in losses), encoding="utf-8")
    violations = client_checker.check(history)
    if result is None:
        violations.append(f"the run itself broke off, with exit code {code}")
    return Verdict(result, history, violations, spun)


def _end_all(folder: Path) -> list[str]:
    """End what of the run is still there after its end, and name it: processes, and mounts below its folder."""
    found = left_processes.of_folder(folder)
    left_processes.end(found)
    rows = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    mounts = [place for row in rows if (place := row.split()[1]).startswith(f"{folder}/")]
    for place in reversed(mounts):
        subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    return [*(f"process {pid}: {command}" for pid, command in found.items()), *(f"mount {place}" for place in mounts)]


def export(commit: str, folder: Path) -> Path:
    """Lay out that version of this repository. Raises CalledProcessError for one that is not there."""
    archive = folder / "before.tar"
    subprocess.run(["git", "-C", str(HOME), "archive", f"--output={archive}", commit, "src"], check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "before", filter="data")
    archive.unlink()
    return folder / "before"


def main(terms: chaos.Terms, *, keep: bool) -> int:
    """Run it with a line for each count; 0 when nothing was violated. Logs stay where something was.

    ``terms.before`` names a commit here.
    """
    test_engine.end_on_sigterm()
    folder = Path(tempfile.mkdtemp(prefix=f"hivemind-chaos-{terms.seed}-", dir="/var/tmp"))
    good = False
    try:
        folder.chmod(0o755)  # workspaces of sandboxes are entered by another user
        if terms.before:
            terms = dataclasses.replace(terms, before=str(export(terms.before, folder)))
        verdict = run(terms, folder)
        print(f"== chaos, seed {terms.seed}: {terms.tasks} tasks\n{verdict.text}", flush=True)  # noqa: T201
        good = verdict.good
    except KeyboardInterrupt:
        print("!! interrupted", flush=True)  # noqa: T201
    finally:
        if good and not keep:
            shutil.rmtree(folder)
        else:
            print(f"== see {folder}", flush=True)  # noqa: T201
    return int(not good)


def inside(folder: Path) -> int:
    """Be that program: the terms are in the folder, and what came of it will be."""
    tempfile.tempdir = str(folder / "tmp")
    terms = json.loads((folder / "terms.json").read_text(encoding="utf-8"))
    return chaos.main(chaos.Terms(**{**terms, "kinds": tuple(terms["kinds"])}), folder)
