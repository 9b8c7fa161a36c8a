"""One's own data, as a part of the service: a copy of it, and its end."""

from app.kit.module import Module, Tier
from app.modules.privacy.contents import erase
from app.modules.privacy.endpoints import router
from app.modules.privacy.models import DataExport
from app.modules.privacy.service import lifespan
from app.modules.privacy.settings import PrivacySettings

privacy = Module(
    name="privacy",
    routers={Tier.APP: [router]},
    tables=[DataExport],
    settings=[PrivacySettings],
    lifespan=lifespan,
    erase=erase,
)
