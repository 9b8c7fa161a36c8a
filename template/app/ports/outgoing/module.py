"""Webhooks that are sent, as a part of the service."""

from app.kit.module import Module
from app.ports.outgoing.settings import OutgoingSettings

outgoing = Module(name="outgoing", settings=[OutgoingSettings])
