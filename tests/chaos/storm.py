"""Kill workers, web processes and brokers while jobs run, and count: `make chaos`, or with ARGS='--seed 7 --jobs 500'.

For each engine a service is made whose three workers run jobs, each of which has an effect in the transaction that ends
it. Workers are killed by SIGKILL at random, brokers are stopped or killed and started again, and the web process is
killed between a commit and the hand-over. Then each job has to have ended once. The exit status says whether all have.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import services
from servers import RabbitMQServer, RedisServer, Server

SERVICE = Path(__file__).with_name("service.py")
PAGE = services.ROOT / "docs" / "chaos.md"
WORKERS = 3
# Nothing ends for so long: something is stuck.
PATIENCE_SECONDS = 300
QUESTION = (
    "SELECT (SELECT count(*) FROM jobs) AS jobs,"
    " (SELECT count(*) FROM jobs WHERE state IN ('succeeded', 'dead')) AS ended,"
    " (SELECT count(*) FROM jobs WHERE state = 'dead') AS dead,"
    " (SELECT count(*) FROM jobs WHERE state = 'running') AS running,"
    " (SELECT count(*) FROM chaos_effects) AS effects,"
    " (SELECT count(DISTINCT number) FROM chaos_effects) AS once"
)
ASK = """
import asyncio, asyncpg, sys
async def main(url, statement):
    connection = await asyncpg.connect(url)
    for line in sys.stdin:
        print(*await connection.fetchrow(statement), flush=True)
asyncio.run(main(*sys.argv[1:]))
"""


@dataclass(frozen=True)
class Case:
    """An engine with its database and its broker."""

    title: str
    queue: str
    engine: str
    database: str = "PostgreSQL"
    broker: str = ""

    def server(self, folder: Path) -> Server | None:
        """Return the broker, which is not started yet."""
        if self.broker == "rabbitmq":
            return RabbitMQServer(folder)
        return RedisServer(folder, keeps=self.broker == "redis") if self.broker else None


CASES = (
    Case("embedded, SQLite", "arq", "embedded", "SQLite"),
    Case("embedded, PostgreSQL", "arq", "embedded"),
    Case("ARQ, Redis keeps", "arq", "arq", broker="redis"),
    Case("ARQ, Redis forgets", "arq", "arq", broker="redis forgets"),
    Case("Celery, Redis keeps", "celery_redis", "celery_redis", broker="redis"),
    Case("Celery, Redis forgets", "celery_redis", "celery_redis", broker="redis forgets"),
    Case("Celery, RabbitMQ", "celery_rabbitmq", "celery_rabbitmq", broker="rabbitmq"),
)


@dataclass(frozen=True)
class Counts:
    """What the database holds: jobs, those that have ended, and the effects of all and of each job once."""

    jobs: int
    ended: int
    dead: int
    running: int
    effects: int
    once: int


@dataclass
class Row:
    """What one engine has gone through, and what came of it."""

    engine: str
    jobs: int
    worker_kills: int = 0
    web_kills: int = 0
    restarts: int = 0
    effects: int = 0
    effects_once: int = 0
    dead: int = 0
    stuck: int = 0
    seconds: int = 0

    @property
    def right(self) -> bool:
        """Tell whether each job has ended once: one of a hundred is poison, and all others have had their effect."""
        poison = self.jobs // 100
        return (self.effects, self.effects_once, self.dead, self.stuck) == (
            self.jobs - poison,
            self.jobs - poison,
            poison,
            0,
        )


class Storm:
    """One engine, its processes, and what happens to them."""

    def __init__(self, case: Case, service: Path, folder: Path, jobs: int, chance: random.Random) -> None:
        self.case, self.service, self.folder, self.chance = case, service, folder, chance
        self.python = service / ".venv/bin/python"
        self.row = Row(case.title, jobs)
        self.loud = bool(os.environ.get("CHAOS_LOUD"))
        self.workers: list[subprocess.Popen[bytes]] = []
        self.webs: list[subprocess.Popen[bytes]] = []
        self.asking: list[subprocess.Popen[str]] = []

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a process of the service."""
        with (self.folder / "log").open("ab") as log:
            command = [str(self.python), str(SERVICE), *map(str, arguments)]
            return subprocess.Popen(command, cwd=self.service, env=os.environ | self.env, stdout=log, stderr=log)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database with the tables of the service."""
        if self.case.database == "SQLite":
            yield f"sqlite:///{self.folder / 'chaos.db'}"
            return
        with services.own_database(self.service, os.environ["TEST_POSTGRES_URL"]) as url:
            yield url

    def count(self) -> Counts:
        """Ask the database."""
        if self.case.database == "SQLite":
            connection = sqlite3.connect(self.folder / "chaos.db", timeout=30)
            try:
                return Counts(*connection.execute(QUESTION).fetchone())
            finally:
                connection.close()
        (asker,) = self.asking
        assert asker.stdin
        assert asker.stdout
        asker.stdin.write("\n")
        asker.stdin.flush()
        return Counts(*map(int, asker.stdout.readline().split()))

    def run(self, server: Server | None, worker_kills: int, web_kills: int, restarts: int) -> Row:
        """Let it all happen. Raises TimeoutError when nothing ends any more."""
        begin = time.monotonic()
        jobs, chance = self.row.jobs, self.chance
        moments = [(chance.uniform(0.02, 0.9), "worker") for _ in range(worker_kills)]
        moments += [(chance.uniform(0.05, 0.85), "broker") for _ in range(restarts if server else 0)]
        moments = sorted((share * jobs, what) for share, what in moments)
        self.workers = [self.start("worker") for _ in range(WORKERS)]
        webs = [chance.randint(1, 1 << 30) for _ in range(web_kills)] + [0]
        web = self.start("web", jobs, webs.pop(0))
        self.webs.append(web)
        counts, last = self.count(), time.monotonic()
        while (counts.jobs, counts.ended) != (jobs, jobs):
            if web.poll() is not None and webs:
                self.row.web_kills += web.returncode == -signal.SIGKILL
                web = self.start("web", jobs, webs.pop(0))
                self.webs.append(web)
            while moments and counts.ended >= moments[0][0]:
                self.strike(moments.pop(0)[1], server)
            time.sleep(chance.uniform(0.05, 0.3))
            before, counts = counts, self.count()
            if before != counts:
                last = time.monotonic()
                if self.loud:
                    print(f"{last - begin:6.1f} {counts}", flush=True)
            elif time.monotonic() - last > PATIENCE_SECONDS:
                break
        web.kill()
        web.wait()
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(timeout=60)
            except subprocess.TimeoutExpired:
                worker.kill()
        counts = self.count()
        self.row.effects, self.row.effects_once, self.row.dead = counts.effects, counts.once, counts.dead
        self.row.stuck, self.row.seconds = jobs - counts.ended, round(time.monotonic() - begin)
        return self.row

    def strike(self, what: str, server: Server | None) -> None:
        """Kill a worker and start another one; or the broker, which comes back after a while."""
        if what == "worker":
            victim = self.workers.pop(self.chance.randrange(len(self.workers)))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            self.workers.append(self.start("worker"))
            self.row.worker_kills += 1
        elif server:
            server.stop(self.chance.choice([signal.SIGTERM, signal.SIGKILL]))
            time.sleep(self.chance.uniform(0, 2))
            server.start()
            self.row.restarts += 1

    def prepare(self, url: str, server: Server | None) -> None:
        """Make the tables."""
        self.env = {
            "ENVIRONMENT": "test",
            "DATABASE_URL": url,
            "JOBS_ENGINE": self.case.engine,
            "JOBS_LEASE_SECONDS": "3",
            "LOG_LEVEL": "WARNING",
        }
        if server:
            self.env["RABBITMQ_URL" if self.case.broker == "rabbitmq" else "REDIS_URL"] = server.url
        services.run(self.service / ".venv/bin/alembic", "upgrade", "head", cwd=self.service, env=self.env)
        table = "CREATE TABLE chaos_effects (number INTEGER)"
        if self.case.database == "SQLite":
            with sqlite3.connect(self.folder / "chaos.db") as connection:
                connection.execute(table)
            return
        services.run_sql(self.service, url, table)
        asker = [str(self.python), "-c", ASK, url, QUESTION]
        self.asking.append(subprocess.Popen(asker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def close(self) -> None:
        """Leave no process behind."""
        processes: list[subprocess.Popen[Any]] = [*self.workers, *self.webs, *self.asking]
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def as_table(rows: list[Row]) -> str:
    """Return the rows as a table of a page."""
    heads = ["Engine", "Jobs", "Workers killed", "Web killed", "Broker restarted", "Effects", "Effects seen once"]
    heads += ["Dead (poison)", "Stuck", "Seconds"]
    lines = [
        heads,
        ["---"] + ["---:"] * (len(heads) - 1),
        *([str(value) for value in asdict(row).values()] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write(rows: list[Row], seed: int) -> None:
    """Write the page, whose introduction stays as it is."""
    introduction = PAGE.read_text("utf-8").partition("<!-- figures -->")[0]
    PAGE.write_text(f"{introduction}<!-- figures -->\n\nSeed {seed}.\n\n{as_table(rows)}", "utf-8")


def main() -> int:
    """Run all engines, or those that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000, help="for each engine, in hundreds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randint(1, 1 << 30), help="what happens when")
    parser.add_argument("--only", default="", help="engines whose names contain this")
    parser.add_argument("--services", type=Path, help="a folder for the services, which are used again")
    parser.add_argument("--write", action="store_true", help="write docs/chaos.md")
    options = parser.parse_args()
    # What was started is stopped then as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    rows: list[Row] = []
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        made = options.services or folder
        template = folder / "template"
        services.copy_template(template)
        for number, case in enumerate(case for case in CASES if options.only.lower() in case.title.lower()):
            service = made / case.queue
            if not (service / ".venv/bin/app").exists():
                services.render(template, service, {"queue": case.queue, "databases": ["postgresql"]}, hooks=True)
            place = folder / str(number)
            place.mkdir()
            chance = random.Random(f"{options.seed} {case.title}")  # noqa: S311
            storm = Storm(case, service, place, options.jobs, chance)
            with ExitStack() as stack:
                server = case.server(place / "broker")
                if server:
                    server.start()
                    stack.callback(server.close)
                url = stack.enter_context(storm.database())
                storm.prepare(url, server)
                stack.callback(storm.close)
                share = max(options.jobs // 200, 1)
                row = storm.run(server, 2 * share, share, max(share // 3, 1))
            rows.append(row)
            print(
                "ok  " if row.right else "WRONG",
                *(f"{name}={value}" for name, value in asdict(row).items()),
                flush=True,
            )
            if not row.right:
                print((place / "log").read_text("utf-8", "replace")[-4000:])
    print(as_table(rows))
    if options.write:
        write(rows, options.seed)
    return int(not all(row.right for row in rows))


if __name__ == "__main__":
    sys.exit(main())
