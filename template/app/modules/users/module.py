"""Users, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.users.endpoints import router
from app.modules.users.models import User

users = Module(name="users", routers={Tier.APP: [router]}, tables=[User])
