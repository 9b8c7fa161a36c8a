from tests.configure import configure
from tests.ports.jobs.conftest import jobs, service

__all__ = ["configure", "jobs", "service"]
