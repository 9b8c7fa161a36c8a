"""Files, as a part of the service."""

from app.kit.module import Module, Tier
from app.modules.files.endpoints import router
from app.modules.files.models import File
from app.modules.files.service import erase, export
from app.modules.files.settings import FileSettings

files = Module(
    name="files",
    routers={Tier.APP: [router]},
    tables=[File],
    settings=[FileSettings],
    erase=erase,
    export=export,
)
