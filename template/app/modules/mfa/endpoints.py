"""Routes to sign in with a second factor or a passkey, and to add them and take them away."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from app.kit.errors import responses
from app.modules.access.service import SELF_CARE, CurrentCaller, require_sign_in
from app.modules.accounts.cookies import agent_of, session_before, take_over
from app.modules.accounts.schemas import Tokens
from app.modules.accounts.service import Sessions, count_client
from app.modules.mfa.schemas import (
    CodeShown,
    Confirmation,
    FactorAdded,
    FactorAnswer,
    PasskeyAnswer,
    PasskeyCreate,
    PasskeyQuestion,
    RecoveryCodes,
    SecondFactor,
    TotpCreated,
)
from app.modules.mfa.service import Mfa

COUNTED = [Depends(count_client)]
public = APIRouter(prefix="/auth", tags=["auth"])
router = APIRouter(prefix="/auth", tags=["auth"], dependencies=[Depends(require_sign_in)])


@public.post(
    "/second-factor",
    summary="Sign in with a second factor",
    dependencies=COUNTED,
    response_model_exclude_none=True,
    responses=responses(403),
)
async def answer_with_factor(
    given: FactorAnswer, request: Request, response: Response, mfa: Mfa, sessions: Sessions
) -> Tokens:
    """Sign in with a code or a passkey, after the password has been right."""
    before = session_before(request) if given.cookies else None
    tokens = await mfa.answer(given, user_agent=agent_of(request))
    return await take_over(response, tokens, sessions, before) if given.cookies else tokens


@public.post("/passkey-options", summary="Begin to sign in with a passkey", dependencies=COUNTED)
async def ask_for_passkey(mfa: Mfa) -> PasskeyQuestion:
    """Ask for what a browser needs to let somebody choose a passkey."""
    return await mfa.ask_for_passkey()


@public.post(
    "/passkey",
    summary="Sign in with a passkey",
    dependencies=COUNTED,
    response_model_exclude_none=True,
    responses=responses(403),
)
async def sign_in_with_passkey(
    given: PasskeyAnswer, request: Request, response: Response, mfa: Mfa, sessions: Sessions
) -> Tokens:
    """Sign in with a passkey alone, which has to ask for a PIN, a finger or a face."""
    before = session_before(request) if given.cookies else None
    tokens = await mfa.sign_in(given, user_agent=agent_of(request))
    return await take_over(response, tokens, sessions, before) if given.cookies else tokens


@router.get("/second-factor", summary="Show my second factor")
async def read_factor(me: CurrentCaller, mfa: Mfa) -> SecondFactor:
    """Show what the account asks for beside the password."""
    return await mfa.show(me)


@router.post(
    "/totp",
    status_code=201,
    summary="Set up an application that shows codes",
    responses=responses(409),
    openapi_extra=SELF_CARE,
)
async def begin_totp(given: Confirmation, me: CurrentCaller, mfa: Mfa) -> TotpCreated:
    """Draw a secret for an application. Its codes are asked for once the first of them has been confirmed."""
    return await mfa.begin_totp(given.password, me=me)


@router.post("/totp/confirm", summary="Confirm the application", responses=responses(403, 409), openapi_extra=SELF_CARE)
async def confirm_totp(given: CodeShown, me: CurrentCaller, mfa: Mfa) -> FactorAdded:
    """Ask for codes of the application from now on. With a first factor come recovery codes, and other sessions end."""
    return await mfa.confirm_totp(given.code, me=me)


@router.post("/totp/remove", status_code=204, summary="Remove the application", openapi_extra=SELF_CARE)
async def remove_totp(given: Confirmation, me: CurrentCaller, mfa: Mfa) -> None:
    """Ask for codes of the application no more."""
    await mfa.remove_totp(given.password, me=me)


@router.post("/recovery-codes", summary="Make new recovery codes", responses=responses(409), openapi_extra=SELF_CARE)
async def renew_recovery_codes(given: Confirmation, me: CurrentCaller, mfa: Mfa) -> RecoveryCodes:
    """Draw new recovery codes. The old ones are good for nothing."""
    return await mfa.renew_recovery_codes(given.password, me=me)


@router.post("/passkeys/options", summary="Begin to add a passkey", responses=responses(409), openapi_extra=SELF_CARE)
async def begin_passkey(given: Confirmation, me: CurrentCaller, mfa: Mfa) -> PasskeyQuestion:
    """Ask for what a browser needs to make a passkey."""
    return await mfa.begin_passkey(given.password, me=me)


@router.post(
    "/passkeys", status_code=201, summary="Add a passkey", responses=responses(403, 409), openapi_extra=SELF_CARE
)
async def add_passkey(given: PasskeyCreate, me: CurrentCaller, mfa: Mfa) -> FactorAdded:
    """Add the passkey that the browser has made. With a first factor come recovery codes, and other sessions end."""
    return await mfa.add_passkey(given, me=me)


@router.post(
    "/passkeys/{id}/remove",
    status_code=204,
    summary="Remove a passkey",
    responses=responses(404),
    openapi_extra=SELF_CARE,
)
async def remove_passkey(id: UUID, given: Confirmation, me: CurrentCaller, mfa: Mfa) -> None:
    """Take no answers of a passkey any more."""
    await mfa.remove_passkey(id, given.password, me=me)
