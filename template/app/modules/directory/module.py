"""The directory of a provider's users, as a part of the service."""

from app.kit.module import Module
from app.modules.directory.models import DirectoryEntry
from app.modules.directory.service import erase, export, lifespan

directory = Module(name="directory", tables=[DirectoryEntry], lifespan=lifespan, erase=erase, export=export)
