"""The contact form, as a part of the service."""

from app.kit.module import HealthCheck, Module, Tier
from app.modules.contact.commands import commands
from app.modules.contact.endpoints import router
from app.modules.contact.models import ContactMessage
from app.modules.contact.service import check
from app.modules.contact.settings import ContactSettings

contact = Module(
    name="contact",
    routers={Tier.PUBLIC: [router]},
    tables=[ContactMessage],
    settings=[ContactSettings],
    health_checks=[HealthCheck("contact", check, advice="Set CONTACT_TO.", critical=False)],
    commands=commands,
)
