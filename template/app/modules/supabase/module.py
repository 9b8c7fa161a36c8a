"""Webhooks of Supabase, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.supabase.commands import commands
from app.modules.supabase.endpoints import router
from app.modules.supabase.settings import SupabaseWebhookSettings, signing_secret
from app.modules.webhooks.service import secret_check

supabase = Module(
    name="supabase",
    routers={Tier.PUBLIC: [router]},
    settings=[SupabaseWebhookSettings],
    health_checks=[secret_check("SUPABASE_WEBHOOK_SECRET", signing_secret)],
    commands=commands,
)
