"""Data processing: tables, images and texts, by readable programs of ours that run inside the capsule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hivemind_worker import errors
from hivemind_worker.tasks import plan, processing, spec
from hivemind_worker.tasks.kinds import kind, program_files


@dataclass(frozen=True, slots=True)
class _Programs:
    """The files of one processing, the first of which is run, and the packages that they import.

    The versions are exact, so that all tasks of a kind share one environment until we change them here.
    """

    scripts: tuple[str, ...]
    requirements: tuple[str, ...]


_CJK_FONT = "cvttf-notosanscjk-regular==1.0"
"""Sixteen megabytes: an image task brings it only where it has such characters to write."""

_PROGRAMS: Mapping[str, _Programs] = {
    "csv_analysis": _Programs(
        (
            *("csv_analysis.py", "csv_statistics.py", "csv_long_form.py", "csv_figures.py"),
            *("csv_report.py", "drawing.py", "plotting.py"),
            *program_files.TABLES,
        ),
        (*program_files.TABLE_REQUIREMENTS, "matplotlib==3.11.2"),
    ),
    "image_processing": _Programs(
        (
            *("image_processing.py", "image_opening.py", "image_metadata.py", "image_steps.py", "image_saving.py"),
            "image_depth.py",
            *("contact_sheet.py", "given.py"),
        ),
        ("pillow==13.0.0",),
    ),
    "text_analysis": _Programs(
        (
            *(
                "text_analysis.py",
                "text_input.py",
                "text_docx.py",
                "text_documents.py",
                "text_results.py",
                "text_words.py",
            ),
            *("text_sentences.py", "text_languages.py", "text_counting.py", "text_duplicates.py"),
            *("text_readability.py", "text_syllables.py", "text_plots.py", "plotting.py"),
            *("encodings_found.py", "encoding_languages.py", "given.py"),
        ),
        (
            *("zstandard==0.25.0", "py3langid==0.4.0", "rjieba==0.2.2", "suzume==0.9.14"),
            *("icu4py==1.2.0", "opencc==1.4.2", "stopwordsiso==0.7.1"),
            *("pypdf==7.1.1", "python-docx==1.2.0", "selectolax==1.0.2"),
            *("matplotlib==3.11.2", _CJK_FONT),
        ),
    ),
}

_INLINE: Mapping[str, str] = {"csv_analysis": "text.csv", "text_analysis": "text.txt"}


class DataProcessingKind:
    """Runs the program of ``processing_type`` on what ``input_data`` names."""

    def program(self, task: spec.TaskSpec) -> kind.Program:
        """Return the program, its settings as a file beside it, and the packages that it needs."""
        asked = task.processing
        if asked is None:
            raise errors.InvalidTask("processing_type", f"missing; one of {', '.join(processing.PROCESSING_TYPES)}")
        programs = _PROGRAMS[asked.processing_type]
        paths = processing.files(asked.input_data, task.input_files)
        inline: tuple[plan.InputFile, ...] = ()
        if isinstance(asked.input_data, Mapping):
            path = f"{program_files.FOLDER}/{_INLINE[asked.processing_type]}"
            inline = (plan.InputFile(path, content=asked.input_data["text"].encode()),)
            paths = (path,)
        settings = {
            "files": list(paths),
            "steps": [dict(step) for step in asked.steps],
            "group_by": list(asked.group_by),
            "queries": dict(asked.queries),
            "options": dict(asked.options),
        }
        return kind.Program(
            program_files.argv(programs.scripts[0]),
            (*program_files.files(task, programs.scripts, settings), *inline),
            (*programs.requirements, *_fonts(asked, paths)),
        )


def _fonts(asked: processing.Processing, paths: tuple[str, ...]) -> tuple[str, ...]:
    """What pictures need beside Pillow's own font, which is Latin alone."""
    written = [str(step.get("text", "")) for step in asked.steps]
    if any(step["op"] == "contact_sheet" and step.get("labels", True) for step in asked.steps):
        written += paths
    return () if all(map(str.isascii, written)) else (_CJK_FONT,)


KIND = DataProcessingKind()
