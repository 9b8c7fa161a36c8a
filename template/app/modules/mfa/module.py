"""The second factor, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.mfa.commands import commands
from app.modules.mfa.endpoints import public, router
from app.modules.mfa.models import MfaChallenge, Passkey, RecoveryCode, Totp
from app.modules.mfa.service import export, lifespan, lock_out, require_factor
from app.modules.mfa.settings import MfaSettings

mfa = Module(
    name="mfa",
    routers={Tier.PUBLIC: [public], Tier.APP: [router]},
    guards={Tier.ADMIN: [require_factor]},
    tables=[Totp, RecoveryCode, Passkey, MfaChallenge],
    settings=[MfaSettings],
    lifespan=lifespan,
    on_lock_out=[lock_out],
    export=export,
    commands=commands,
)
