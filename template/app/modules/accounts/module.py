"""Local accounts, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.accounts import tasks  # noqa: F401
from app.modules.accounts.commands import commands
from app.modules.accounts.endpoints import public, router
from app.modules.accounts.models import Account, LoginSession, MailToken, RefreshToken
from app.modules.accounts.service import export, lifespan, lock_out
from app.modules.accounts.settings import AccountSettings

accounts = Module(
    name="accounts",
    routers={Tier.PUBLIC: [public], Tier.APP: [router]},
    tables=[Account, LoginSession, RefreshToken, MailToken],
    settings=[AccountSettings],
    lifespan=lifespan,
    on_lock_out=[lock_out],
    export=export,
    commands=commands,
)
