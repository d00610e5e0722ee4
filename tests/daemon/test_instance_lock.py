"""One daemon for one state directory, and the tools beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess

import pytest

from edgeagent.daemon.instance_lock import PID_FILE, InstanceLock
from edgeagent.errors import StartFailed
from tests.commands import run_here
from tests.conftest import serving


def test_a_second_one_is_refused_with_the_first_ones_pid_until_that_ends(tmp_path):
    first = InstanceLock(tmp_path)
    with pytest.raises(StartFailed, match=rf"in use by another daemon \(pid {os.getpid()}\)"):
        InstanceLock(tmp_path)
    InstanceLock(tmp_path / "another").close()
    first.close()
    first.close()
    InstanceLock(tmp_path).close()


@pytest.mark.parametrize("how", ["deleted", "another file", "a folder", "a link", "renamed"])
def test_the_lock_holds_whatever_is_done_to_the_file_that_names_the_daemon(tmp_path, how):
    state, file = tmp_path / "state", tmp_path / "state" / PID_FILE
    first = InstanceLock(state)
    if how == "renamed":
        file.rename(state / "old")
    else:
        file.unlink()
    if how == "another file":
        file.write_text("")
    elif how == "a folder":
        file.mkdir()
    elif how == "a link":
        file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartFailed, match="in use by another daemon"):
        InstanceLock(state)
    (tmp_path / "alias").symlink_to(state)
    with pytest.raises(StartFailed, match="in use by another daemon"):
        InstanceLock(tmp_path / "alias")
    first.close()
    InstanceLock(state).close()
    assert not (tmp_path / "elsewhere").exists()


def test_where_a_file_system_locks_no_folders_a_file_is_locked(tmp_path, monkeypatch):
    def flock(fd: int, kind: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(fd, kind)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    first = InstanceLock(tmp_path)
    with pytest.raises(StartFailed, match="in use by another daemon"):
        InstanceLock(tmp_path)
    first.close()
    InstanceLock(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_refused_where_it_is_needed(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StartFailed, match="cannot be used"):
        InstanceLock(tmp_path / "file" / "state")
    InstanceLock(tmp_path / "file" / "state", must_hold=False).close()


def test_a_second_daemon_ends_in_one_line_and_tools_go_on(tmp_path):
    state, models = tmp_path / "state", tmp_path / "models"
    models.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here(*arguments, "--state-dir", state)

    with serving(models, state, preload=False) as daemon:
        second = run("serve", "--port", "0")
        assert second.returncode == 2 and second.stdout == ""
        (line,) = second.stderr.strip().splitlines()
        assert f"is in use by another daemon (pid {daemon.pid})" in line
        assert run("keys", "create", "--name", "beside").returncode == 0
        assert run("data", "stats").returncode == 0
    with serving(models, state, preload=False):
        pass
