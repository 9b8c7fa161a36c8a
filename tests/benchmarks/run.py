"""Measure what the template promises: rendering, starting, importing, memory, requests per second.

`make bench` runs this. A table is printed and `build/bench.json` written, with the targets beside what was measured.
Targets that are missed are told and fail nothing; the exit status is only non-zero when something does not work.
The times of a machine vary, so what has a rival (imports, requests) is measured in turns with it, and the ratio counts.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path

import services
from load import CLIENT, CONNECTIONS, Round, put_load
from services import BrokenError

RESULT = services.ROOT / "build" / "bench.json"
LIBRARIES = Path(__file__).with_name("libraries.py")
VERIFYING = Path(__file__).with_name("verifying.py")
JOBS = Path(__file__).with_name("jobs.py")
BARE = Path(__file__).with_name("bare.py")
REALTIME = Path(__file__).with_name("realtime.py")
ROOM = """

@room("bench", clients_send=True)
async def is_open(database: Database, me: Identity, name: str) -> bool:
    return True
"""
FILES = Path(__file__).with_name("storing.py")
FILE_MIB = 1024
SIGNING_IN = Path(__file__).with_name("signing_in.py")
# What is measured takes half of it; past it, something hangs.
LIMIT_SECONDS = 600
PROJECTS = 1000
ROUTES = {
    "health": "/health",
    "me": "/api/v1/app/users/me",
    "projects": "/api/v1/app/projects?page=1&size=20",
}
RATIO_TARGETS = {
    ("health", "sqlite"): 0.8,
    ("health", "postgresql"): 0.8,
    ("projects", "postgresql"): 0.6,
    ("token", "sqlite"): 0.55,
    ("token", "postgresql"): 0.55,
}
PARTS = ("rendering", "importing", "serving", "identity", "jobs", "files", "realtime")
CLIENTS = 1000


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, and what it may be at most."""

    name: str
    value: float | None
    unit: str
    at_most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Tell whether the target was met."""
        if self.value is None or self.at_most is None:
            return ""
        return "ok" if self.value <= self.at_most else "missed"

    def line(self) -> str:
        """Return the row of the table."""
        digits = 0 if self.unit == "MB" else 2
        value = "not measured" if self.value is None else f"{self.value:.{digits}f} {self.unit}"
        target = "" if self.at_most is None else f"<= {self.at_most:g} {self.unit}"
        return f"  {self.name:<44}{value:>14}   {target:<12}{self.verdict:<8}{self.note}".rstrip()


@dataclass(frozen=True)
class Race:
    """A route of the service beside the same route of the bare probe; `at_least` is a share of the probe's rate."""

    route: str
    database: str
    service: Round
    probe: Round
    ratio: float
    at_least: float | None

    @property
    def verdict(self) -> str:
        """Tell whether the target was met."""
        return "" if self.at_least is None else "ok" if self.ratio >= self.at_least else "missed"

    def line(self) -> str:
        """Return the row of the table."""
        columns = "".join(f"{r.rate:>9.0f}{r.p50:>8.2f}{r.p99:>8.2f}" for r in (self.service, self.probe))
        target = "" if self.at_least is None else f">= {self.at_least:.0%}"
        return f"  {self.route:<10}{self.database:<12}{columns}{self.ratio:>8.0%}   {target:<8}{self.verdict}".rstrip()


@dataclass
class Bench:
    """One run, in a temporary folder that holds the template."""

    folder: Path
    rounds: int
    seconds: int
    figures: list[Figure] = field(default_factory=list)
    races: list[Race] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def template(self) -> Path:
        """Return the copy of the template."""
        return self.folder / "template"

    def place(self) -> Path:
        """Return a new folder for a service."""
        return self.folder / f"service-{next(self.numbers)}"

    def rendering(self) -> None:
        """Measure copies without and with hooks, and the first answer with empty and with warm caches."""
        services.render(self.template, self.place())
        plain = [services.render(self.template, self.place()) for _ in range(5)]
        self.figures.append(Figure("copy in-process, without hooks", statistics.median(plain), "s", at_most=1.5))
        self.figures.append(self.cold())
        # A cache that is filled already makes no difference; one that could not be filled above is filled here.
        self.first_answer()
        times = [self.first_answer() for _ in range(3)]
        copied, answered = (statistics.median(column) for column in zip(*times, strict=True))
        self.figures.append(Figure("copy in-process, with hooks, warm caches", copied, "s"))
        self.figures.append(Figure("copy to the first answer, warm caches", answered, "s", at_most=15))

    def cold(self) -> Figure:
        """Measure the first answer of a service whose packages have to be downloaded."""
        name, limit = "copy to the first answer, empty cache", 60
        usual = os.environ.get("UV_CACHE_DIR")
        os.environ["UV_CACHE_DIR"] = str(self.folder / "cache")
        try:
            return Figure(name, self.first_answer()[1], "s", limit)
        except BrokenError:
            return Figure(name, None, "s", limit, note="the packages could not be downloaded")
        finally:
            os.environ.pop("UV_CACHE_DIR")
            if usual is not None:
                os.environ["UV_CACHE_DIR"] = usual

    def first_answer(self) -> tuple[float, float]:
        """Copy with hooks and serve; return the seconds after which the copy was done, and the first answer there."""
        service = self.place()
        start = time.perf_counter()
        copied = services.render(self.template, service, hooks=True)
        with services.served(service):
            return copied, time.perf_counter() - start

    def importing(self) -> None:
        """Measure what the service adds to the import of its libraries, and the memory of a served one."""
        service = self.place()
        services.render(self.template, service, hooks=True)
        libraries = services.run(service / ".venv/bin/python", LIBRARIES, cwd=service)

        def seconds(statements: str) -> float:
            timed = "import time; start = time.perf_counter()\n{}\nprint(time.perf_counter() - start)"
            return float(services.run(service / ".venv/bin/python", "-c", timed.format(statements), cwd=service))

        alone, whole, ratio = in_turns(lambda: seconds(libraries), lambda: seconds("import app.main"), rounds=9)
        self.figures.append(Figure("import of the libraries alone", alone, "s"))
        self.figures.append(Figure("import of app.main", whole, "s"))
        self.figures.append(Figure("import, beside the libraries alone", ratio, "x", at_most=1.25))
        with services.served(service, services.PRODUCTION) as (base, pid):
            for _ in range(50):
                services.get(base + ROUTES["health"])
                services.get(base + ROUTES["me"])
            self.figures.append(Figure("memory after 100 requests", services.memory(pid), "MB", at_most=110))

    def serving(self) -> None:
        """Measure requests per second of the service and of the bare probe, on each database."""
        service = self.place()
        answers = {"features": ["projects"], "databases": ["postgresql"]}
        services.render(self.template, service, answers, hooks=True)
        self.race(service, "sqlite", f"sqlite:///{self.folder / 'bench.db'}")
        if server := os.environ.get("TEST_POSTGRES_URL"):
            with services.own_database(service, server) as url:
                self.race(service, "postgresql", url)

    def identity(self) -> None:
        """Measure what a bearer token costs, and requests of a caller who is known by one."""
        service = self.place()
        services.render(self.template, service, {"auth_provider": "oidc", "databases": ["postgresql"]}, hooks=True)
        with services.vouched(service) as given:
            # Production asks for https, which the provider on this machine does not have.
            env = {
                **services.PRODUCTION,
                "ENVIRONMENT": "test",
                "LOG_FORMAT": "json",
                "OIDC_ISSUER": given["url"],
                "OIDC_AUDIENCE": given["audience"],
            }
            command = (service / ".venv/bin/python", VERIFYING, given["token"])
            taken = float(services.run(*command, cwd=service, env=env))
            self.figures.append(Figure("verifying a token with a known key", taken, "ms", at_most=0.3))
            self.race_with_token(service, "sqlite", f"sqlite:///{self.folder / 'tokens.db'}", env, given)
            if server := os.environ.get("TEST_POSTGRES_URL"):
                with services.own_database(service, server) as url:
                    self.race_with_token(service, "postgresql", url, env, given)
        self.signing_in()

    def signing_in(self) -> None:
        """Measure a login beside the work of Argon2 that no login can do without."""
        service = self.place()
        services.render(self.template, service, {"auth_provider": "local"}, hooks=True)
        env = {
            **services.PRODUCTION,
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
            "AUTH_LIMIT_ACCOUNT": "1000000/second",
            "AUTH_LIMIT_CLIENT": "1000000/second",
        }
        with services.served(service, env) as (base, _):
            said = services.run(service / ".venv/bin/python", SIGNING_IN, base, cwd=service, env=env)
        alone, whole = map(float, said.splitlines()[-1].split())
        self.figures.append(Figure("Argon2id of a password, alone", alone, "ms"))
        self.figures.append(Figure("login with it, beside that alone", whole / alone, "x", at_most=1.5))

    def jobs(self) -> None:
        """Measure what it takes to enqueue a job, and to have it run, in the database and through Redis."""
        service = self.place()
        services.render(self.template, service, {"queue": "arq", "databases": ["postgresql"]}, hooks=True)
        sqlite = f"sqlite:///{self.folder / 'jobs.db'}"
        self.jobs_with(service, "embedded, SQLite", sqlite, {"JOBS_ENGINE": "embedded"}, at_most=1)
        server, redis = os.environ.get("TEST_POSTGRES_URL"), os.environ.get("TEST_REDIS_URL")
        if server:
            with services.own_database(service, server) as url:
                self.jobs_with(service, "embedded, PostgreSQL", url, {"JOBS_ENGINE": "embedded"}, at_most=None)
                if redis:
                    env = {"JOBS_ENGINE": "arq", "REDIS_URL": redis}
                    self.jobs_with(service, "ARQ, PostgreSQL", url, env, at_most=2)
                    self.beside_bare(service, "ARQ, PostgreSQL", url, env, ("arq", redis))
        for queue, broker in (("celery_redis", "REDIS_URL"), ("celery_rabbitmq", "RABBITMQ_URL")):
            there = os.environ.get(f"TEST_{broker}")
            if server and there:
                service = self.place()
                services.render(self.template, service, {"queue": queue, "databases": ["postgresql"]}, hooks=True)
                with services.own_database(service, server) as url:
                    env = {"JOBS_ENGINE": queue, broker: there}
                    self.jobs_with(service, f"{queue}, PostgreSQL", url, env, at_most=None)
                    self.beside_bare(service, f"{queue}, PostgreSQL", url, env, ("celery", there))

    def jobs_with(self, service: Path, name: str, url: str, env: dict[str, str], at_most: float | None) -> None:
        """Measure jobs on a database, with an engine."""
        env = {"ENVIRONMENT": "test", "DATABASE_URL": url, **env}
        services.run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
        said = services.run(service / ".venv/bin/python", JOBS, cwd=service, env=env)
        enqueued, ran = map(float, said.splitlines()[-1].split())
        self.figures.append(Figure(f"enqueueing a job: {name}", enqueued, "ms", at_most))
        self.figures.append(Figure(f"enqueueing and running it: {name}", ran, "ms"))

    def beside_bare(self, service: Path, name: str, url: str, env: dict[str, str], rival: tuple[str, str]) -> None:
        """Measure jobs in turns with the engine alone, which writes no rows and commits nothing."""
        env = {"ENVIRONMENT": "test", "DATABASE_URL": url, **env}
        python = service / ".venv/bin/python"

        def alone() -> float:
            return float(services.run(python, BARE, *rival, "2000", cwd=service).splitlines()[-1])

        def ours() -> float:
            return float(services.run(python, JOBS, "works", cwd=service, env=env).splitlines()[-1])

        bare, _, ratio = in_turns(alone, ours, rounds=3)
        self.figures.append(Figure(f"the same by the engine alone: {name}", bare, "ms"))
        # Seventy per cent of its rate.
        self.figures.append(Figure(f"ours beside it: {name}", ratio, "x", at_most=1.43))

    def files(self) -> None:
        """Measure a large file on its way into the local storage and out again, and the memory that it takes."""
        service = self.place()
        services.render(self.template, service, {"features": ["files"]}, hooks=True)
        env = {**services.PRODUCTION, "STORAGE_FOLDER": str(self.folder / "files")}
        with services.served(service, env) as (base, pid):
            said = services.run(service / ".venv/bin/python", FILES, base, str(FILE_MIB), cwd=service, env=env)
            uploaded, downloaded = map(float, said.splitlines()[-1].split())
            self.figures.append(Figure(f"most memory, {FILE_MIB} MiB both ways", services.most_memory(pid), "MB", 120))
        self.figures.append(Figure("upload to local files", uploaded, "MiB/s"))
        self.figures.append(Figure("download from local files", downloaded, "MiB/s"))

    def realtime(self) -> None:
        """Measure how long an event takes to reach all clients of a process, in turns with a bare broadcast.

        The clients are in one process as well, which takes its share of the cores from both.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * CLIENTS)), hard))
        service = self.place()
        services.render(self.template, service, {"features": ["realtime"]}, hooks=True)
        with (service / "app/modules/realtime/rooms.py").open("a", encoding="utf-8") as rooms:
            rooms.write(ROOM)
        env = {**services.PRODUCTION, "REALTIME_CONNECTIONS_PER_USER": str(CLIENTS)}
        with services.served(service, env) as (base, pid):
            address = f"{base.replace('http', 'ws', 1)}/api/v1/app/ws"
            before = services.memory(pid)
            with services.broadcasting(service) as bare:
                python = service / ".venv/bin/python"
                said = services.run(python, REALTIME, str(CLIENTS), address, bare, cwd=service)
            used = services.memory(pid) - before
        (p50, p99, worst), (_, bare_p99, _) = (map(float, line.split()) for line in said.splitlines()[-2:])
        name = f"an event to {CLIENTS} clients of one process"
        self.figures.append(Figure(f"{name}, p50", p50, "ms"))
        self.figures.append(Figure(f"{name}, p99", p99, "ms", at_most=250))
        self.figures.append(Figure(f"{name}, the last", worst, "ms"))
        self.figures.append(Figure(f"{name}, p99 of a bare broadcast in turns", bare_p99, "ms"))
        self.figures.append(Figure(f"{name}, p99 as a share of that", p99 / bare_p99, "", at_most=1.5))
        self.figures.append(Figure("load of the machine meanwhile", os.getloadavg()[0], ""))
        self.figures.append(Figure("memory for them", used, "MB"))

    def race_with_token(
        self, service: Path, database: str, url: str, env: dict[str, str], given: dict[str, str]
    ) -> None:
        """Let the service and the probe take turns on the caller's own record, with the same token in each request.

        The probe verifies it each time. The service knows it from the first time on, as it knows who comes again.
        """
        env = {**env, "DATABASE_URL": url}
        services.run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
        token = {"TOKEN_KEY": given["key"], "TOKEN_AUDIENCE": given["audience"], "TOKEN_ISSUER": given["url"]}
        with services.served(service, env) as (base, _):
            services.get(base + ROUTES["me"], given["token"])
            with services.probed(service, url, token) as probe:
                addresses = (base + ROUTES["me"], probe + ROUTES["me"])
                same_answers(*addresses, given["token"])
                self.races.append(self.run_race("token", database, *addresses, given["token"]))

    def race(self, service: Path, database: str, url: str) -> None:
        """Let the service and the probe take turns on every route."""
        env = {**services.PRODUCTION, "DATABASE_URL": url}
        services.run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
        with ExitStack() as stack:
            base, _ = stack.enter_context(services.served(service, env))
            services.get(base + ROUTES["me"])
            for number in range(PROJECTS):
                project = {"name": f"Project {number}", "description": "One of many that a list is made of."}
                services.post(f"{base}/api/v1/app/projects", project)
            if database == "postgresql":
                services.run_sql(service, url, "ANALYZE")
            probe = stack.enter_context(services.probed(service, url))
            for route, path in ROUTES.items():
                same_answers(base + path, probe + path)
                self.races.append(self.run_race(route, database, base + path, probe + path))

    def run_race(self, route: str, database: str, service: str, probe: str, token: str = "") -> Race:
        """Put load on a route of both, in turns."""
        put_load(service, 1, token)
        put_load(probe, 1, token)
        ours, theirs = [], []
        for _ in range(self.rounds):
            ours.append(put_load(service, self.seconds, token))
            theirs.append(put_load(probe, self.seconds, token))
        ratio = statistics.median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True))
        return Race(route, database, middle(ours), middle(theirs), ratio, RATIO_TARGETS.get((route, database)))

    def table(self) -> Iterator[str]:
        """Yield the lines of the table."""
        if self.figures:
            yield f"\n  {'':<44}{'measured':>14}   {'target':<12}"
            yield from (figure.line() for figure in self.figures)
        if self.races:
            yield f"\n  {'':<22}{'service':>9}{'p50':>8}{'p99':>8}{'probe':>9}{'p50':>8}{'p99':>8}{'ratio':>8}   target"
            yield from (race.line() for race in self.races)
            yield "\n  Requests per second and latencies in milliseconds, medians of rounds in turns; the ratio is the"
            yield f"  median of the rounds' ratios. {CONNECTIONS} connections, one worker. Load: {CLIENT}."
            if "postgresql" not in {race.database for race in self.races}:
                yield "  PostgreSQL was not measured: TEST_POSTGRES_URL says where a server is."

    def document(self) -> dict[str, object]:
        """Return all that was measured, as JSON holds it."""
        return {
            "python": platform.python_version(),
            "machine": {"system": platform.system(), "architecture": platform.machine(), "cpus": os.cpu_count()},
            "load": {"client": CLIENT, "connections": CONNECTIONS, "rounds": self.rounds, "seconds": self.seconds},
            "figures": [asdict(figure) | {"verdict": figure.verdict} for figure in self.figures],
            "races": [asdict(race) | {"verdict": race.verdict} for race in self.races],
        }


def in_turns(rival: Callable[[], float], ours: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Measure two things in turns; return the median of each, and the median of our share of the rival's."""
    rival()
    ours()
    pairs = [(rival(), ours()) for _ in range(rounds)]
    theirs, mine = zip(*pairs, strict=True)
    return statistics.median(theirs), statistics.median(mine), statistics.median(b / a for a, b in pairs)


def middle(rounds: list[Round]) -> Round:
    """Return the median of each column."""
    columns = zip(*(asdict(one).values() for one in rounds), strict=True)
    return Round(*(statistics.median(column) for column in columns))


def same_answers(ours: str, theirs: str, token: str = "") -> None:
    """Make sure that the probe answers like the service. Raises BrokenError."""
    answers = [services.get(url, token) for url in (ours, theirs)]
    for answer in answers:
        # These tell one moment from the next.
        for name in ("timestamp", "uptime_seconds"):
            answer.pop(name, None)
    if answers[0] != answers[1] or not answers[0]:
        raise BrokenError(f"{theirs} does not answer like {ours}:\n{answers[1]}\n{answers[0]}")


def stop(number: int, _: object) -> None:
    """End the run, and with it all that it started."""
    raise BrokenError(f"the run did not end within {LIMIT_SECONDS} s" if number == signal.SIGALRM else "stopped")


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure what the template promises.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"what to measure: {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of load for each route")
    parser.add_argument("--seconds", type=int, default=2, help="length of a round")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    services.leave_machine_out()
    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, stop)
    signal.alarm(LIMIT_SECONDS)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="espalier-bench-") as folder:
        bench = Bench(Path(folder), options.rounds, options.seconds)
        services.copy_template(bench.template)
        try:
            for part in options.parts or PARTS:
                print(f"{part} ...", file=sys.stderr, flush=True)
                getattr(bench, part)()
        except (BrokenError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            print(f"The benchmark is broken: {error}", file=sys.stderr)
            return 1
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(bench.document(), indent=2) + "\n", "utf-8")
    print("\n".join(bench.table()))
    print(f"\n  Took {time.monotonic() - start:.0f} s; all figures are in {RESULT.relative_to(services.ROOT)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
