"""Files that are the old or the new version, whatever goes wrong; and errors that are told in one line."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from envs import files
from envs.errors import UserError, exit_on_user_error, unknown


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_replaces_a_file(tmp_path):
    path = tmp_path / "notes.txt"
    files.write(path, "old")
    files.write(str(path), b"new \xff")
    assert path.read_bytes() == b"new \xff"
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with pytest.raises(error), files.replaced(path) as beside:
        beside.write_text("half of the ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space left"):
        files.write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with files.replaced(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
        assert beside.parent == path.parent
    assert path.read_text() == "new"


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    program = f"""
        import os, signal
        from envs import files
        with files.replaced({str(path)!r}) as beside:
            beside.write_text("half of the ne")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        files.write(tmp_path / "none" / "notes.txt", "new")


SMALL_DISK = """
    import sys
    from pathlib import Path
    from envs import files
    from envs.errors import exit_on_user_error
    path = Path(sys.argv[1], "notes.txt")
    path.write_bytes(b"old" * 1000)
    def main():
        files.write(path, b"new" * 100_000)
    try:
        exit_on_user_error(main)
    finally:
        print(path.read_bytes() == b"old" * 1000, sorted(other.name for other in path.parent.iterdir()))
"""


def may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="a small disk cannot be mounted here without privileges")
def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_file(tmp_path):
    script = f'mount -t tmpfs -o size=64k none {tmp_path} && exec "$0" -c "$1" {tmp_path}'
    command = ["unshare", "-rm", "sh", "-c", script, sys.executable, textwrap.dedent(SMALL_DISK)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    told = [line for line in result.stderr.splitlines() if not line.startswith("Warp")]
    assert len(told) == 1 and told[0].startswith("error: cannot write") and "No space left" in told[0]
    assert result.stdout == "True ['notes.txt']\n"


# --- errors -----------------------------------------------------------------------------------------------------------


def test_unknown_names_the_nearest_and_all():
    known = ("merge", "highway", "town")
    assert str(unknown("scenario", "hihgway", known)) == (
        "unknown scenario 'hihgway'; did you mean 'highway'? (known: highway, merge, town)"
    )
    assert str(unknown("scenario", "xyz", known)) == "unknown scenario 'xyz' (known: highway, merge, town)"


def ended(main, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as leaving:
        exit_on_user_error(main)
    assert leaving.value.__suppress_context__
    return leaving.value.code, capsys.readouterr().err


def raising(error: BaseException):
    def main():
        raise error

    return main


def test_a_user_error_ends_a_command_with_one_line(capsys):
    assert ended(raising(UserError("no such thing")), capsys) == (2, "error: no such thing\n")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_cannot_be_written_ends_a_command_with_one_line(capsys, code):
    status, told = ended(raising(OSError(code, os.strerror(code), "run/config.json")), capsys)
    assert status == 2
    assert told == f"error: cannot write run/config.json: {os.strerror(code)}; nothing was replaced\n"


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError(errno.EIO, "a dying disk"), KeyboardInterrupt()])
def test_defects_keep_their_traceback(error):
    with pytest.raises(type(error)):
        exit_on_user_error(raising(error))


def test_a_command_that_succeeds_returns():
    assert exit_on_user_error(lambda: None) is None
