"""Brokers of our own on loopback, which are really killed and started again."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

HOST = "127.0.0.1"
START_SECONDS = 120


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait(port: int, is_there: Callable[[socket.socket], bool]) -> None:
    """Wait until a server answers. Raises TimeoutError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((HOST, port), timeout=5) as connection:
                if is_there(connection):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


class Server(Protocol):
    """A server that can be started and stopped, again and again."""

    url: str

    def start(self) -> None:
        """Start, and wait until it answers."""

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop by a signal, and wait for the end."""

    def close(self) -> None:
        """Stop for good, and leave no process behind."""


class RedisServer:
    """A Redis that appends each change to a file, or one that forgets everything when it ends."""

    def __init__(self, folder: Path, *, keeps: bool) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        self._keeps = "yes" if keeps else "no"
        self.url = f"redis://{HOST}:{self._port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"--bind {HOST} --port {self._port} --appendonly {self._keeps} --dir {self._folder}".split()
        with (self._folder / "log").open("ab") as log:
            command = [program("redis-server"), *options, "--save", ""]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers(connection: socket.socket) -> bool:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")

        wait(self._port, answers)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop by a signal, and wait for the end."""
        self._process.send_signal(how)
        self._process.wait(timeout=30)

    def close(self) -> None:
        """Stop for good."""
        if self._process.poll() is None:
            self.stop(signal.SIGKILL)


class RabbitMQServer:
    """A RabbitMQ node with a name and ports of its own. As root it runs as the user of Debian's package."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._port = folder, free_port()
        self.url = f"amqp://guest:guest@{HOST}:{self._port}/"
        config = folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.1 = {HOST}:{self._port}\ndistribution.listener.interface = {HOST}\n", "utf-8")
        self._env = os.environ | {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"chaos{self._port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(config),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": HOST,
        }
        self._as: list[str] = []
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid=rabbitmq", "--regid=rabbitmq", "--clear-groups"]
            user = pwd.getpwnam("rabbitmq")
            os.chown(folder, user.pw_uid, user.pw_gid)
            # Its folder is below one of a temporary kind, which nobody else may enter.
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)

    def start(self) -> None:
        """Start, and wait until it answers."""
        # A group of its own, for Erlang starts helpers.
        self._process = subprocess.Popen(
            [*self._as, program("rabbitmq-server")],
            env=self._env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def answers(connection: socket.socket) -> bool:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(connection.recv(16))

        wait(self._port, answers)

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop by a signal to all of its processes, and wait for the end."""
        os.killpg(self._process.pid, how)
        self._process.wait(timeout=60)
        # The port is free again a moment later.
        time.sleep(0.5)

    def close(self) -> None:
        """Stop for good, with the daemon that finds Erlang's nodes."""
        if self._process.poll() is None:
            self.stop(signal.SIGKILL)
        subprocess.run([*self._as, program("epmd"), "-kill"], env=self._env, capture_output=True, check=False)


def program(name: str) -> str:
    """Find a program of Debian's packages. Raises FileNotFoundError."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/lib/rabbitmq/bin")
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found
