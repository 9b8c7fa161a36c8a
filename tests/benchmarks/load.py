"""Put load on an HTTP route of this machine: with wrk where it is installed, else with a plain client of ours."""

import re
import selectors
import shutil
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECTIONS = 16
WRK = shutil.which("wrk")
CLIENT = "wrk" if WRK else "Python client (it needs a core of its own, so ratios look better than with wrk)"
UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Round:
    """What one round of load gave: requests per second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float


def put_load(url: str, seconds: int, token: str = "") -> Round:
    """Keep all connections busy for some seconds. Raises RuntimeError when an answer is not 200."""
    return with_wrk(url, seconds, token) if WRK else with_sockets(url, seconds, token)


def with_wrk(url: str, seconds: int, token: str) -> Round:
    """Run wrk with one thread and read what it prints."""
    command = [str(WRK), "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s", "--latency", url]
    command += ["--header", f"Authorization: Bearer {token}"] if token else []
    output = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(f"{url} did not answer well under load:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    latencies = dict(re.findall(r"^\s+(50|99)%\s+(\S+)$", output, re.MULTILINE))
    if not rate:
        raise RuntimeError(f"wrk printed something unexpected:\n{output}")
    return Round(float(rate[1]), milliseconds(latencies["50"]), milliseconds(latencies["99"]))


def milliseconds(text: str) -> float:
    """Read a time as wrk prints it, such as 950.00us."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]


@dataclass
class Connection:
    """One connection that is kept alive, and the answer it waits for."""

    socket: socket.socket
    sent: float = 0.0
    received: bytearray = field(default_factory=bytearray)

    def complete(self) -> bool:
        """Return whether the whole answer is there."""
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return False
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or not length:
            raise RuntimeError(f"an answer is not as expected: {bytes(head[:200])!r}")
        return len(body) >= int(length[1])


def with_sockets(url: str, seconds: int, token: str) -> Round:
    """Ask over plain sockets, one request at a time on each."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    header = f"Authorization: Bearer {token}\r\n" if token else ""
    request = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{header}\r\n".encode()
    times: list[float] = []
    with selectors.DefaultSelector() as selector:
        for _ in range(CONNECTIONS):
            connection = Connection(socket.create_connection((parts.hostname, parts.port), timeout=30))
            selector.register(connection.socket, selectors.EVENT_READ, connection)
        start = time.perf_counter()
        try:
            for key in list(selector.get_map().values()):
                key.data.sent = time.perf_counter()
                key.data.socket.sendall(request)
            while time.perf_counter() - start < seconds:
                for key, _ in selector.select(timeout=30):
                    times += turn(key.data, request)
        finally:
            for key in list(selector.get_map().values()):
                key.data.socket.close()
        elapsed = time.perf_counter() - start
    cuts = statistics.quantiles(times, n=100)
    return Round(len(times) / elapsed, cuts[49] * 1000, cuts[98] * 1000)


def turn(connection: Connection, request: bytes) -> list[float]:
    """Read what has come; when that completes an answer, return its time and ask again."""
    part = connection.socket.recv(65536)
    if not part:
        raise RuntimeError("a connection was closed under load")
    connection.received += part
    if not connection.complete():
        return []
    now = time.perf_counter()
    taken = now - connection.sent
    connection.received.clear()
    connection.sent = now
    connection.socket.sendall(request)
    return [taken]
