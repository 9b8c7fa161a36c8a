"""What files add to the daily report, as a part of the service."""

from app.kit.module import Module
from app.modules.reports_files.service import lifespan

reports_files = Module(name="reports_files", lifespan=lifespan)
