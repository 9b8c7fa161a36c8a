"""What users have to do with the contact form, as a part of the service."""

from app.kit.module import Module
from app.modules.contact_users.service import erase, export, lifespan

contact_users = Module(name="contact_users", lifespan=lifespan, erase=erase, export=export)
