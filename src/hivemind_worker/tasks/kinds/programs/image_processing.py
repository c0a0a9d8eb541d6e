"""Pictures through a list of steps. One that cannot be read or worked on is told, and the others go on.

Results: ``images/`` with each picture under its own path, ``summary.json``, and ``contact_sheet.jpg`` where asked for.
"""

from __future__ import annotations

import concurrent.futures
import re
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

import contact_sheet
import given
import image_metadata
import image_opening
import image_saving
import image_steps

_BYTES_OF_A_PIXEL = 12
"""Four for a picture in memory; a step has its old and its new one, and a third while it weighs by alpha."""

_MOST_PIXELS = 178_956_970
"""Where the memory would allow more: the number beyond which Pillow itself speaks of a decompression bomb."""


_CHOSEN = ("quality", "lossless", "max_bytes")
"""What a convert step says of how the file is written."""


@dataclass
class _Job:
    """What is done with every picture."""

    steps: list[dict[str, Any]]
    background: str
    quality: int
    max_pixels: int
    frames: str
    sheets: contact_sheet.Sheets | None
    taken: set[str] = field(default_factory=set)


@dataclass
class _Done:
    """One picture after its steps, not yet under its final name."""

    told: dict[str, Any]
    parked: Path | None = None
    form: str = ""
    small: Image.Image | None = None


def main() -> int:
    """Work through all pictures; 1 where none of them could be done."""
    said = given.settings()
    options = said["options"]
    threads = min(given.threads(), max(1, len(said["files"])))
    job = _job(said, options, threads)
    Image.MAX_IMAGE_PIXELS = job.max_pixels / 2  # type: ignore[assignment]  # Pillow refuses twice as many
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    began = time.monotonic()
    images: list[dict[str, Any]] = []
    parking = Path(given.PRIVATE, "parking")
    parking.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        jobs = [(path, parking / str(at)) for at, path in enumerate(said["files"])]
        for done in pool.map(lambda each: _picture(each[0], each[1], job), jobs):
            images.append(_kept(done, job))
            if len(images) % max(20, len(jobs) // 10) == 0 or len(images) == len(jobs):
                print(f"{len(images):,} of {len(jobs):,} pictures, {time.monotonic() - began:.1f} s")
    parking.rmdir()
    if job.sheets is not None:
        job.sheets.finish()
    failed = [image for image in images if "error" in image]
    given.write_json(
        "summary.json",
        {
            "pictures": len(images),
            "done": len(images) - len(failed),
            "failed": len(failed),
            "steps": said["steps"],
            "max_pixels": job.max_pixels,
            "contact_sheets": job.sheets.files if job.sheets is not None else [],
            "images": images,
        },
    )
    for image in failed[:20]:
        print(f"{image['file']}: {image['error']}", file=sys.stderr)
    if len(failed) > 20:
        print(f"and {len(failed) - 20:,} more, told in summary.json", file=sys.stderr)
    return 1 if failed and len(failed) == len(images) else 0


def _job(said: dict[str, Any], options: dict[str, Any], threads: int) -> _Job:
    background = options.get("background", "#ffffff")
    room = given.memory_for_data() // threads // _BYTES_OF_A_PIXEL
    asked = [step for step in said["steps"] if step["op"] == "contact_sheet"]
    return _Job(
        steps=said["steps"],
        background=background,
        quality=options.get("quality", 85),
        max_pixels=options.get("max_pixels") or min(_MOST_PIXELS, room),
        frames=options.get("frames", "all"),
        sheets=contact_sheet.Sheets(asked[0], len(said["files"]), background) if asked else None,
    )


def _picture(path: str, parked: Path, job: _Job) -> _Done:
    """One picture through all steps, in a thread of its own."""
    result: dict[str, Any] = {"file": path}
    doing = "is broken"
    try:
        known = image_opening.opened(path, job.max_pixels, job.frames)
        result["from"] = {
            "format": known.format.lower(),
            "mode": known.mode,
            "width": known.size[0],
            "height": known.size[1],
            "frames": len(known.frames),
            "bytes": Path(path).stat().st_size,
        }
        form, chosen, small = image_saving.written_format(known.format), {"quality": job.quality}, None
        for step in job.steps:
            doing = f"{step['op']} failed"
            if step["op"] == "convert":
                form, chosen = step["format"], chosen | {name: step[name] for name in _CHOSEN if name in step}
            elif step["op"] == "strip_exif":
                image_metadata.strip(known.metadata)
            elif step["op"] == "contact_sheet":
                small = job.sheets.small(known.picture, known.metadata.icc) if job.sheets is not None else None
            else:
                known.frames = [_stepped(frame, step, known.notes, job) for frame in known.frames]
        doing = f"could not be written as {form}"
        image_saving.save(known, parked, form, chosen, job.background)
    except Exception as error:  # noqa: BLE001 - broken bytes make a decoder raise anything; the others go on
        parked.unlink(missing_ok=True)
        return _Done({**result, "error": _reason(error, doing, job.max_pixels)})
    result |= {"format": form, "width": known.picture.width, "height": known.picture.height}
    if len(known.frames) > 1:
        result["frames"] = len(known.frames)
    result["bytes"] = parked.stat().st_size
    if known.notes:
        result["notes"] = known.notes
    return _Done(result, parked, form, small)


def _stepped(frame: Image.Image, step: dict[str, Any], notes: list[str], job: _Job) -> Image.Image:
    if step["op"] not in image_steps.DEEP:
        frame = image_opening.eight_bits(frame, notes)
    return image_steps.apply(frame, step, job.background, job.max_pixels)


def _kept(done: _Done, job: _Job) -> dict[str, Any]:
    """Give the picture its name: in the order of the files, so that the same task gives the same names."""
    if done.parked is None:
        return done.told
    name = image_saving.target(done.told["file"], done.form, job.taken)
    place = given.RESULTS / name
    place.parent.mkdir(parents=True, exist_ok=True)
    done.parked.replace(place)
    if done.small is not None and job.sheets is not None:
        job.sheets.add(done.told["file"], done.small)
    return {**done.told, "result": name}


def _reason(error: Exception, doing: str, max_pixels: int) -> str:
    if isinstance(error, given.Refusal):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        count = int("".join(re.findall(r"\((\d+) pixels\)", str(error))[:1]) or 0)
        return image_opening.too_many(f"{count:,}", max_pixels)
    if isinstance(error, UnidentifiedImageError):
        return f"is no picture in a format known here ({', '.join(image_opening.READ).lower()})"
    if isinstance(error, MemoryError):
        return "does not fit into this task's memory: give it a larger memory_limit"
    if isinstance(error, OSError) and error.errno in given.NO_ROOM:
        return "the workspace is full: give the task a larger disk_limit"
    return f"{doing}: {' '.join(str(error).split())[:200] or type(error).__name__}"


if __name__ == "__main__":
    given.run(main)
