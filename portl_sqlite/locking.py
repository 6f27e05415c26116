"""A lock of one job, which ends with the process that holds it.

It is a lock of the operating system on a small file beside the database. The file is removed with the lock; whoever has
waited for it makes sure that the file locked is still the one of that name.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import portl

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _locked(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _locked(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


#: A process that was killed takes a moment to be gone.
PATIENCE_SECONDS, LOOK_SECONDS = 2.0, 0.05


class JobLock:
    """See the module.

    Args:
        database: the file of the database.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file: int | None = None

    def path(self, job: str) -> Path:
        """Return the name of the file that stands for a job."""
        digest = hashlib.sha256(job.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return self._database.with_name(f"{self._database.name}-portl-{digest}")

    def acquire(self, job: str) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: another process has it; the message says which.
            PermissionDenied: the folder cannot be written to.
        """
        path, patience = self.path(job), time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise _unusable(self._database, error) from error
            if _locked(file) and _is(file, path):
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()}".encode())
                self._file = file
                return
            holder = os.pread(file, 100, 0).decode() if hasattr(os, "pread") else ""
            os.close(file)
            if time.monotonic() >= patience:
                said = f"{holder or 'another process'} is running the job {job!r}"
                raise portl.AlreadyRunning(said, hint="wait until it is done")
            time.sleep(LOOK_SECONDS)

    def held(self, job: str) -> bool:
        """Return whether some process holds the lock."""
        try:
            file = os.open(self.path(job), os.O_RDWR)
        except FileNotFoundError:
            return False
        except PermissionError:
            return False  # whoever holds it, this process cannot tell
        try:
            return not _locked(file)
        finally:
            os.close(file)

    def release(self, job: str) -> None:
        """Give the lock back, if it is held."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            self.path(job).unlink(missing_ok=True)
        except OSError:
            pass  # where open files cannot be removed, it stays, unlocked
        os.close(file)


def _unusable(database: Path, error: OSError) -> portl.Error:
    kind = portl.PermissionDenied if isinstance(error, PermissionError) else portl.OperationError
    said = f"{database}: a lock cannot be created beside it: {error.strerror}"
    return kind(said, hint="let the role write to the file's folder, as SQLite itself needs for its journal")


def _is(file: int, path: Path) -> bool:
    """Return whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
