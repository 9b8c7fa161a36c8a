"""Tasks: jobs as their owners see them, and the worker that runs them."""

from app.kit.module import Module, Tier
from app.modules.tasks.commands import commands
from app.modules.tasks.endpoints import router
from app.modules.tasks.service import export

tasks = Module(name="tasks", routers={Tier.APP: [router]}, commands=commands, export=export)
