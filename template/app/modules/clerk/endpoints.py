"""The route that Clerk calls."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.kit.errors import responses
from app.modules.clerk.service import understand
from app.modules.clerk.settings import signing_secret
from app.modules.directory.service import Directory
from app.modules.webhooks.service import BODY, Message, Receipts, verified

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
# Clerk sends through Svix, whose headers have its name in them.
ClerkMessage = Annotated[Message, Depends(verified(signing_secret, headers="svix"))]


@router.post(
    "/clerk",
    status_code=204,
    summary="Take an event of Clerk",
    responses=responses(400, 401),
    openapi_extra=BODY,
)
async def receive_clerk(message: ClerkMessage, request: Request, receipts: Receipts, directory: Directory) -> None:
    """Follow what happens to users there. What came before, or is no matter here, is accepted."""
    told = understand(message.body, request.app.state.verifier)
    if told and await receipts.is_new("clerk", message):
        await directory.apply(told)
