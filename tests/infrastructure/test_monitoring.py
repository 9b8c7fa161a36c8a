"""What Prometheus is told of a service: its own tool reads every file, its rules fire, and a real one scrapes."""

import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COMBINATIONS, Copy, free_port, run, unavailable
from treatment import get, served

Rendered = Callable[[str], Path]
WATCHED = [name for name, answers in COMBINATIONS.items() if "prometheus" in answers.get("observability", [])]
WITH_ALL = "all-lists"
TOKEN = "a-token-of-thirty-two-characters"  # noqa: S105
# What each alert is about, as it is when all is well and when somebody is to be called.
WELL_AND_ILL: dict[str, tuple[str, str, str]] = {
    "Down": ('up{job="x"}', "1x30", "0x30"),
    "Failing": ('http_server_request_duration_seconds_count{http_response_status_code="503"}', "0x30", "0+60x30"),
    "Slow": ('http_server_request_duration_seconds_bucket{le="1"}', "0+60x30", "0x30"),
    "DatabaseConnectionsUsedUp": (
        'db_client_connection_count{instance="a",db_client_connection_state="used"}',
        "7x30",
        "8x30",
    ),
    "MetricsIncomplete": ('metrics_reading_success{reading="jobs"}', "1x30", "0x30"),
    "JobsWait": ('jobs_wait_seconds{queue="heavy"}', "10x30", "301x30"),
    "JobsDead": ('jobs{task="mail",state="dead"}', "0x30", "1x30"),
    "CacheAway": ('cache_operation_duration_seconds_count{error_type="ConnectionError"}', "7x30", "0+1x30"),
    "StorageAway": ('storage_operation_duration_seconds_count{error_type="StorageUnavailable"}', "7x30", "0+1x30"),
    "RealtimeApart": ("realtime_reaches_others", "1x30", "0x30"),
}
# What the expressions also look at.
BESIDE = [
    ('http_server_request_duration_seconds_count{http_response_status_code="200"}', "0+600x30"),
    ('http_server_request_duration_seconds_bucket{le="5"}', "0+60x30"),
    ('http_server_request_duration_seconds_bucket{le="+Inf"}', "0+60x30"),
    ('db_client_connection_max{instance="a"}', "8x30"),
]


def tool(name: str) -> str:
    """Return a command of Prometheus. Skips the running test where it is missing; under CI=true it fails."""
    if shutil.which(name) is None:
        unavailable(name)
    return name


def rules(service: Path) -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((service / "monitoring" / "alerts.yml").read_text("utf-8"))["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@pytest.mark.parametrize("name", WATCHED)
def test_promtool_takes_both_files(rendered: Rendered, name: str) -> None:
    folder = rendered(name) / "monitoring"
    run(tool("promtool"), "check", "config", "--syntax-only", "prometheus.yml", cwd=folder)
    run("promtool", "check", "rules", "--lint-fatal", "alerts.yml", cwd=folder)


def test_alerts_are_about_what_the_service_has(rendered: Rendered) -> None:
    alone = {rule["alert"] for rule in rules(rendered("observability-prometheus"))}
    assert alone == {"Down", "Failing", "Slow", "DatabaseConnectionsUsedUp", "MetricsIncomplete"}
    assert {rule["alert"] for rule in rules(rendered(WITH_ALL))} == set(WELL_AND_ILL)


@pytest.mark.parametrize("alert", WELL_AND_ILL)
def test_an_alert_fires_when_something_is_wrong_and_only_then(rendered: Rendered, tmp_path: Path, alert: str) -> None:
    series, well, ill = WELL_AND_ILL[alert]
    (rule,) = [rule for rule in rules(rendered(WITH_ALL)) if rule["alert"] == alert]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": [rule]}]}), "utf-8")

    def fires(values: str) -> bool:
        given = [{"series": name, "values": kept} for name, kept in BESIDE if name != series]
        # To expect nothing is how to ask: it fails where the alert fires.
        test = {"eval_time": "25m", "alertname": alert, "exp_alerts": []}
        cases = [
            {
                "interval": "1m",
                "input_series": [*given, {"series": series, "values": values}],
                "alert_rule_test": [test],
            }
        ]
        (tmp_path / "cases.yml").write_text(yaml.safe_dump({"rule_files": ["rules.yml"], "tests": cases}), "utf-8")
        asked = [tool("promtool"), "test", "rules", "cases.yml"]
        done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or f'alertname="{alert}"' in done.stdout + done.stderr, done.stdout + done.stderr
        return done.returncode != 0

    assert (fires(well), fires(ill)) == (False, True)


@contextmanager
def prometheus(folder: Path, data: Path) -> Iterator[str]:
    """Run a Prometheus with the files of a folder."""
    address = f"127.0.0.1:{free_port()}"
    options = [f"--web.listen-address={address}", f"--storage.tsdb.path={data}", "--log.level=warn"]
    command = [tool("prometheus"), f"--config.file={folder / 'prometheus.yml'}", *options]
    with subprocess.Popen(command) as process:
        try:
            yield f"http://{address}/api/v1"
        finally:
            process.kill()


def ask(api: str, query: str) -> list[Any]:
    found: list[Any] = get(f"{api}/query?{urllib.parse.urlencode({'query': query})}")["data"]["result"]
    return found


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if holds():
                return
        except OSError:
            pass  # It is not up yet.
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.service
@pytest.mark.xdist_group(WITH_ALL)
def test_a_real_prometheus_scrapes_a_service_and_knows_all_that_alerts_ask_for(
    services: Callable[[str], Copy], tmp_path: Path
) -> None:
    service = services(WITH_ALL).folder
    shutil.copytree(service / "monitoring", tmp_path / "monitoring")
    config = yaml.safe_load((service / "monitoring" / "prometheus.yml").read_text("utf-8"))
    (scrape,) = config["scrape_configs"]
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    env = {"DATABASE_URL": f"sqlite:///{tmp_path}/app.db", "METRICS_TOKEN": TOKEN, "METRICS_SECONDS": "0"}
    run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
    with served(service, env) as (base, _):
        scrape["static_configs"] = [{"targets": [base.removeprefix("http://")]}]
        scrape["authorization"] = {"credentials_file": "token"}
        (tmp_path / "monitoring" / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
        (tmp_path / "monitoring" / "token").write_text(TOKEN, "utf-8")
        with prometheus(tmp_path / "monitoring", tmp_path / "data") as api:
            until(lambda: [one["value"][1] for one in ask(api, "up")] == ["1"])
            route = "/api/v1/public/metrics"
            until(lambda: bool(ask(api, f'http_server_request_duration_seconds_count{{http_route="{route}"}}')))
            (group,) = get(f"{api}/rules")["data"]["groups"]
            assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
            told = set(get(f"{api}/metadata")["data"])
    known = told | {f"{name}_{part}" for name in told for part in ("bucket", "count")} | {"up"}
    names = re.compile(r"\b(?:up|[a-z]+(?:_[a-z]+)+|jobs)(?= *[\[{)=>])")
    asked = {name for rule in rules(service) for name in names.findall(re.sub("{.*?}", "{}", rule["expr"]))}
    assert len(asked) >= len(WELL_AND_ILL)
    assert asked <= known | {"histogram_quantile"}, asked - known
