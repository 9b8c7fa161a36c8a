"""Routes for one's own data."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import StreamingResponse

from app.kit.errors import responses
from app.modules.access.service import SELF_CARE, CurrentCaller, require_sign_in
from app.modules.privacy.schemas import Erasure, ExportStarted, Farewell
from app.modules.privacy.service import Confirm, Privacy

router = APIRouter(prefix="/users/me", tags=["privacy"], dependencies=[Depends(require_sign_in)])
JSON_FILE = {"content": {"application/json": {"schema": {"type": "object"}}}, "description": "A JSON document"}
FOUND = {200: JSON_FILE, **responses(404)}


@router.post("/export", status_code=202, summary="Export my data", openapi_extra=SELF_CARE)
async def begin_export(me: CurrentCaller, privacy: Privacy) -> ExportStarted:
    """Have all that the service keeps about the caller written into one document, which can be fetched for a while."""
    return ExportStarted(task_id=await privacy.begin_export(me.user_id))


@router.get("/export", summary="Fetch my export", response_class=StreamingResponse, responses=FOUND)
async def fetch_export(me: CurrentCaller, privacy: Privacy) -> StreamingResponse:
    """Fetch the newest export of the caller, as a file."""
    headers = {"Content-Disposition": "attachment; filename=export.json"}
    return StreamingResponse(await privacy.find_export(me.user_id), media_type="application/json", headers=headers)


@router.delete("", summary="Delete me", openapi_extra=SELF_CARE)
async def erase_me(request: Request, me: CurrentCaller, privacy: Privacy, given: Erasure | None = None) -> Farewell:
    """Delete the caller with all that is theirs, at once and for good. An account of the service asks its password."""
    confirm: Confirm = request.app.state.confirm_erasure
    part = await confirm(request, me, given.password if given else None)
    return Farewell(detail=await privacy.erase(me.user_id, part))
