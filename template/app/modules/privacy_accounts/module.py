"""The end of an account, as a part of the service."""

from app.kit.module import Module
from app.modules.privacy_accounts.service import lifespan

privacy_accounts = Module(name="privacy_accounts", lifespan=lifespan)
