"""The route that a project of Supabase calls."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.kit.errors import responses
from app.modules.directory.service import Directory
from app.modules.supabase.service import understand
from app.modules.supabase.settings import signing_secret
from app.modules.webhooks.service import BODY, Message, Receipts, verified

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
SupabaseMessage = Annotated[Message, Depends(verified(signing_secret))]


@router.post(
    "/supabase",
    status_code=204,
    summary="Take an event of Supabase",
    responses=responses(400, 401),
    openapi_extra=BODY,
)
async def receive_supabase(
    message: SupabaseMessage, request: Request, receipts: Receipts, directory: Directory
) -> None:
    """Follow what happens to users there. What came before, or is no matter here, is accepted."""
    told = understand(message.body, request.app.state.verifier)
    if told and await receipts.is_new("supabase", message):
        await directory.apply(told)
