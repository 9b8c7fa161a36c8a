"""Retention, as a part of the service."""

from app.kit.module import Module
from app.modules.retention import tasks  # noqa: F401

retention = Module(name="retention")
