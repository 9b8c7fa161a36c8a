"""The mirror of a provider's users, as a part of the service."""

from app.kit.module import Module
from app.modules.mirror.service import lifespan

mirror = Module(name="mirror", lifespan=lifespan)
