"""Who may replace or read what, from owners and modes alone."""

from __future__ import annotations

import stat

import pytest

from hivemind_worker.filesystem import permissions

DIR, LINK, FIFO, FILE = stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFREG
US, OTHER = 1000, 1001
TRUST = permissions.Trust(US, frozenset({US}))


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "problem"),
    [
        (DIR | 0o755, 0, 0, ""),
        (DIR | 0o1777, 0, 0, ""),
        (DIR | 0o775, 0, 4, ""),  # /var/log, as a distribution may have it
        (DIR | 0o700, US, US, ""),
        (DIR | 0o775, US, US, ""),  # its user's own group
        (DIR | 0o775, US, 100, "group 100"),
        (DIR | 0o777, US, US, "by everybody"),
        (DIR | 0o777, 0, 0, "by everybody"),
        (DIR | 0o755, OTHER, OTHER, f"uid {OTHER}"),
        (DIR | 0o1777, OTHER, OTHER, f"uid {OTHER}"),
        (LINK | 0o777, OTHER, OTHER, f"uid {OTHER}"),
        (LINK | 0o777, US, US, ""),
        (DIR | 0o755, 65534, 65534, "uid 65534"),
    ],
)
def test_nobody_else_can_replace_what_lies_on_the_way(mode: int, uid: int, gid: int, problem: str) -> None:
    found = permissions.way_problem(permissions.Status(mode, uid, gid), TRUST)
    assert problem in found
    assert bool(problem) is bool(found)


def test_users_without_a_number_here_are_the_host_s() -> None:
    trust = permissions.Trust(US, unmapped=65534)
    assert not permissions.way_problem(permissions.Status(DIR | 0o755, 65534), trust)


def test_a_private_folder_is_its_user_s_even_where_root_would_do() -> None:
    assert permissions.folder_problem(permissions.Status(DIR | 0o700, 0), TRUST)
    assert not permissions.folder_problem(permissions.Status(DIR | 0o755, US), TRUST)


@pytest.mark.parametrize(
    ("mode", "uid", "links", "writes", "problem"),
    [
        (FILE | 0o644, US, 1, True, ""),
        (FIFO | 0o600, US, 1, False, "no regular file"),
        (FILE | 0o600, 0, 1, False, "uid 0"),
        (FILE | 0o600, US, 2, True, "2 names"),
        (FILE | 0o600, US, 2, False, ""),
    ],
)
def test_a_file_is_its_user_s_own(mode: int, uid: int, links: int, writes: bool, problem: str) -> None:
    found = permissions.file_problem(permissions.Status(mode, uid, links=links), US, writes=writes)
    assert problem in found
    assert bool(problem) is bool(found)


@pytest.mark.parametrize(
    ("mode", "is_open"), [(0o600, False), (0o2700, False), (0o640, True), (0o604, True), (0o710, True)]
)
def test_open_is_whatever_anybody_else_may(mode: int, is_open: bool) -> None:
    assert permissions.Status(mode, US).is_open is is_open
