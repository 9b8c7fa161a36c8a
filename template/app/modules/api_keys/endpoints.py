"""Routes for API keys: for people who are signed in, and not for keys, which could make themselves more."""

from uuid import UUID

from fastapi import APIRouter, Depends, Request

from app.kit.errors import responses
from app.kit.pagination import Page, PageQuery
from app.modules.access.service import SELF_CARE, CurrentCaller, require_sign_in
from app.modules.api_keys.schemas import ApiKeyCreate, ApiKeyCreated, ApiKeyRead
from app.modules.api_keys.scopes import available
from app.modules.api_keys.service import ApiKeyReads, ApiKeys
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/api-keys", tags=["api-keys"], dependencies=[Depends(require_sign_in)])


@router.get("", summary="List my API keys")
async def list_api_keys(reads: ApiKeyReads, me: CurrentIdentity, page: PageQuery) -> Page[ApiKeyRead]:
    """List the caller's keys, the newest first. The keys themselves are not among it."""
    return await reads.page(page, owner=me.user_id)


@router.post("", status_code=201, summary="Make an API key", responses=responses(409))
async def create_api_key(new: ApiKeyCreate, request: Request, keys: ApiKeys, me: CurrentCaller) -> ApiKeyCreated:
    """Make a key for a program of the caller's. The answer shows it once."""
    return await keys.create(new, owner=me, offered=available(request.app))


@router.get("/{id}", summary="Show an API key", responses=responses(404))
async def read_api_key(id: UUID, reads: ApiKeyReads, me: CurrentIdentity) -> ApiKeyRead:
    """Show one of the caller's keys, without the key itself."""
    return await reads.get(id, owner=me.user_id)


@router.delete("/{id}", status_code=204, summary="Revoke an API key", responses=responses(404), openapi_extra=SELF_CARE)
async def revoke_api_key(id: UUID, keys: ApiKeys, me: CurrentIdentity) -> None:
    """Take one of the caller's keys back, from the next request on."""
    await keys.revoke(id, owner=me.user_id)
