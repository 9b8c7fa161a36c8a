"""Projects, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.projects.endpoints import router
from app.modules.projects.models import Project
from app.modules.projects.service import erase, export

projects = Module(name="projects", routers={Tier.APP: [router]}, tables=[Project], erase=erase, export=export)
