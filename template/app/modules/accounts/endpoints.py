"""Routes to sign up and in, and for the account of who is signed in."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from app.kit.errors import responses
from app.kit.pagination import Page, PageQuery
from app.modules.access.service import SELF_CARE, CurrentCaller, require_sign_in
from app.modules.accounts.cookies import (
    agent_of,
    forget_cookies,
    keep_in_cookies,
    read_refresh_token,
    session_before,
    take_over,
)
from app.modules.accounts.schemas import (
    Challenge,
    EmailChange,
    EmailRequest,
    Login,
    NewAddress,
    PasswordChange,
    PasswordReset,
    RefreshRequest,
    Registration,
    SessionItem,
    Tokens,
    Told,
)
from app.modules.accounts.service import Accounts, Sessions, count_client
from app.ports.identity.bearer import Unauthorized

COUNTED = [Depends(count_client)]
public = APIRouter(prefix="/auth", tags=["auth"])
router = APIRouter(prefix="/auth", tags=["auth"], dependencies=[Depends(require_sign_in)])


@public.post("/register", status_code=202, summary="Sign up", dependencies=COUNTED)
async def register(asked: EmailRequest, accounts: Accounts) -> Told:
    """Ask for an account, which the link in the mail makes. The answer is the same for every address."""
    await accounts.register(asked.email)
    return Told(detail="Open the link in the mail that we have sent to this address.")


@public.post(
    "/login",
    summary="Sign in",
    dependencies=COUNTED,
    response_model=Tokens,
    response_model_exclude_none=True,
    responses={202: {"model": Challenge, "description": "A second factor is asked for"}, **responses(401, 403)},
)
async def login(given: Login, request: Request, response: Response, accounts: Accounts) -> Tokens | Response:
    """Sign in with an address and a password. A 202 asks for a second factor; then nobody is signed in yet."""
    before = session_before(request) if given.cookies else None
    found = await accounts.log_in(given, user_agent=agent_of(request))
    if isinstance(found, Challenge):
        return JSONResponse(found.model_dump(exclude_none=True), 202)
    return await take_over(response, found, accounts.sessions, before) if given.cookies else found


@public.post("/refresh", summary="Stay signed in", response_model_exclude_none=True, responses=responses(401, 403))
async def refresh(
    request: Request, response: Response, sessions: Sessions, given: RefreshRequest | None = None
) -> Tokens:
    """Trade a refresh token for new tokens. It is good once: when it comes again, the session ends."""
    in_body = given.refresh_token if given else None
    token = read_refresh_token(request, in_body)
    if token is None:
        raise Unauthorized("This needs a refresh token, in the body or in the cookie of a sign-in.")
    tokens = await sessions.refresh(token)
    return tokens if in_body else keep_in_cookies(response, tokens)


@public.post("/logout", status_code=204, summary="Sign out", responses=responses(401, 403))
async def logout(request: Request, response: Response, sessions: Sessions, given: RefreshRequest | None = None) -> None:
    """End the session of a refresh token. Who is signed out already gets the same answer."""
    if token := read_refresh_token(request, given.refresh_token if given else None):
        await sessions.log_out(token)
    forget_cookies(request, response)


@public.post(
    "/verify-email", status_code=204, summary="Make my account", dependencies=COUNTED, responses=responses(404)
)
async def verify_email(given: Registration, accounts: Accounts) -> None:
    """Confirm an address with the token from a mail, and choose the password of the account that it makes."""
    await accounts.verify_email(given)


@public.post(
    "/confirm-new-email",
    status_code=204,
    summary="Confirm my new address",
    dependencies=COUNTED,
    responses=responses(403, 404),
)
async def confirm_new_email(given: NewAddress, accounts: Accounts) -> None:
    """Give an account its new address, with the token that was mailed there and the password of the account."""
    await accounts.confirm_new_email(given)


@public.post("/request-verification", status_code=202, summary="Mail the link again", dependencies=COUNTED)
async def request_verification(asked: EmailRequest, accounts: Accounts) -> Told:
    """Mail the link of a registration again. The answer is the same for every address."""
    await accounts.request_verification(asked.email)
    return Told(detail="If there is something to confirm, a mail is on its way.")


@public.post("/forgot-password", status_code=202, summary="Mail a link to set a password", dependencies=COUNTED)
async def forgot_password(asked: EmailRequest, accounts: Accounts) -> Told:
    """Mail a link to set a new password. The answer is the same for every address."""
    await accounts.forgot_password(asked.email)
    return Told(detail="If there is such an account, a mail is on its way.")


@public.post(
    "/reset-password", status_code=204, summary="Set a password", dependencies=COUNTED, responses=responses(404)
)
async def reset_password(given: PasswordReset, accounts: Accounts) -> None:
    """Set a new password with the token from a mail. All sessions end."""
    await accounts.reset_password(given)


@router.post("/change-password", status_code=204, summary="Change my password", openapi_extra=SELF_CARE)
async def change_password(given: PasswordChange, me: CurrentCaller, accounts: Accounts) -> None:
    """Set a new password. All other sessions end."""
    await accounts.change_password(given, me=me)


@router.post("/change-email", status_code=202, summary="Change my address", openapi_extra=SELF_CARE)
async def change_email(given: EmailChange, me: CurrentCaller, accounts: Accounts) -> Told:
    """Ask for another address. The account has it when the link in the mail to it has been opened."""
    await accounts.change_email(given, me=me)
    return Told(detail="Open the link in the mail that we have sent to this address.")


@router.get("/sessions", summary="List my sessions")
async def list_sessions(me: CurrentCaller, sessions: Sessions, page: PageQuery) -> Page[SessionItem]:
    """List where the caller is signed in, the newest first."""
    return await sessions.page(me, page)


@router.delete("/sessions", status_code=204, summary="End my other sessions", openapi_extra=SELF_CARE)
async def end_other_sessions(me: CurrentCaller, sessions: Sessions) -> None:
    """End all sessions of the caller but the one that asks."""
    await sessions.end_others(me)


@router.delete(
    "/sessions/{id}", status_code=204, summary="End a session", responses=responses(404), openapi_extra=SELF_CARE
)
async def end_session(id: UUID, me: CurrentCaller, sessions: Sessions) -> None:
    """End one of the caller's sessions. Its tokens are good for nothing any more."""
    await sessions.end(me, id)
