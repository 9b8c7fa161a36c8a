"""Routes of realtime: the ticket, the status, and the WebSocket itself."""

import time
from secrets import token_hex

from fastapi import APIRouter, Request, WebSocket
from structlog.contextvars import bound_contextvars

from app.kit.errors import AppError, problem
from app.kit.logging import get_logger
from app.modules.realtime.schemas import RealtimeStatus, Ticket
from app.modules.realtime.service import hub_of
from app.modules.realtime.tickets import shown_by
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/ws", tags=["realtime"])
# Who connects is told from a ticket as well, so the guards of the tier are asked by the hub.
socket = APIRouter()
log = get_logger(__name__)


# Who may only read may listen.
@router.post("/ticket", status_code=201, summary="Get a ticket", openapi_extra={"x-self-care": True})
async def issue_ticket(request: Request, me: CurrentIdentity) -> Ticket:
    """Get what lets the caller connect once, within some seconds: `/api/v1/app/ws?token=`."""
    tickets = hub_of(request).tickets
    return Ticket(ticket=await tickets.issue(shown_by(request.headers)), expires_in=tickets.lifetime.seconds)


@router.get("/status", summary="Show how realtime is")
async def read_status(request: Request, me: CurrentIdentity) -> RealtimeStatus:
    """Show the limits of connections, and how many the caller has."""
    return hub_of(request).status(me.user_id)


@socket.websocket("/api/v1/app/ws")
async def connect(websocket: WebSocket) -> None:
    """Speak with a client, as the README says."""
    hub, begun = hub_of(websocket), time.perf_counter()
    client = websocket.client.host if websocket.client else None
    with bound_contextvars(request_id=token_hex(16)):
        try:
            connection = await hub.admit(websocket)
        except AppError as error:
            log.info("websocket refused", status=error.status, reason=error.detail, client=client)
            answer = problem(websocket.scope, error.status, error.detail, code=error.code, headers=error.headers)
            return await websocket.send_denial_response(answer)
        try:
            await websocket.accept()
            log.info("websocket opened", user=str(connection.me.user_id), client=client)
            await hub.serve(connection)
        finally:
            await hub.forget(connection)
            code, reason = connection.farewell or (None, None)
            seconds = round(time.perf_counter() - begun, 3)
            log.info("websocket closed", user=str(connection.me.user_id), code=code, reason=reason, seconds=seconds)
