"""API keys, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.api_keys.commands import commands
from app.modules.api_keys.endpoints import router
from app.modules.api_keys.models import ApiKey
from app.modules.api_keys.scopes import require_admin_scope
from app.modules.api_keys.service import export, lifespan, revoke_all
from app.modules.api_keys.settings import ApiKeySettings

api_keys = Module(
    name="api_keys",
    routers={Tier.APP: [router]},
    guards={Tier.ADMIN: [require_admin_scope]},
    tables=[ApiKey],
    settings=[ApiKeySettings],
    lifespan=lifespan,
    on_lock_out=[revoke_all],
    export=export,
    commands=commands,
)
