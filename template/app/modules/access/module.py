"""Access, as a part of the service: who may do what, and how admins change that."""

from app.kit.module import Module, Tier
from app.modules.access.commands import commands
from app.modules.access.endpoints import router
from app.modules.access.service import bearer_scheme, require_admin

access = Module(
    name="access",
    routers={Tier.ADMIN: [router]},
    guards={Tier.APP: [bearer_scheme], Tier.ADMIN: [bearer_scheme, require_admin]},
    commands=commands,
)
