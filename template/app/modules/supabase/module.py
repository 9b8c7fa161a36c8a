"""Webhooks of Supabase, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.supabase.commands import commands
from app.modules.supabase.endpoints import router
from app.modules.supabase.settings import SupabaseWebhookSettings

supabase = Module(
    name="supabase", routers={Tier.PUBLIC: [router]}, settings=[SupabaseWebhookSettings], commands=commands
)
