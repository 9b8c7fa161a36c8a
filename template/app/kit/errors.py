"""Errors as problem details (RFC 9457). Nothing about the inside of the process leaves it in production."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from app.kit import clock

PROBLEM_JSON = "application/problem+json"
RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}  # By RFC 9110, which Python follows since 3.13.


class FieldProblem(BaseModel):
    """What is wrong with one part of a request."""

    field: str = Field(description="Where it is, for example body.name.", examples=["body.name"])
    code: str = Field(examples=["string_too_short"])
    message: str = Field(examples=["String should have at least 1 character"])


class Problem(BaseModel):
    """The body of every error response."""

    type: str = "about:blank"
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["There is no such project."])
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="A stable name of the error for programs.", examples=["not_found"])
    request_id: str | None
    timestamp: datetime
    errors: list[FieldProblem] | None = None
    debug: str | None = Field(None, description="The cause; only outside production, with DEBUG on.")


class AppError(Exception):
    """The base of errors that a client may see. Subclasses choose the status; the code follows from it."""

    status = 500
    code: str | None = None
    headers: Mapping[str, str] | None = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NotFound(AppError):
    """The thing does not exist, or the caller may not know that it does."""

    status = 404


class Unavailable(AppError):
    """Something that the service needs is away; trying again in some seconds makes sense."""

    status = 503
    headers: Mapping[str, str] = {"Retry-After": "5"}


def problem(
    scope: Mapping[str, Any],
    status: int,
    detail: str,
    *,
    code: str | None = None,
    errors: Sequence[FieldProblem] | None = None,
    headers: Mapping[str, str] | None = None,
    debug: str | None = None,
) -> Response:
    """Build the problem response for a request's ASGI scope."""
    title = RENAMED.get(status) or HTTPStatus(status).phrase
    body = Problem(
        title=title,
        status=status,
        detail=detail,
        instance=scope["path"],
        code=code or title.lower().replace(" ", "_"),
        request_id=scope.get("state", {}).get("request_id"),
        timestamp=clock.now(),
        errors=list(errors) if errors else None,
        debug=debug,
    )
    return Response(body.model_dump_json(exclude_none=True), status, headers, PROBLEM_JSON)


async def _app_error(request: Request, error: AppError) -> Response:
    return problem(request.scope, error.status, error.detail, code=error.code, headers=error.headers)


async def _http_error(request: Request, error: HTTPException) -> Response:
    headers = error.headers
    if error.status_code == 405:
        # The framework names the methods of one route; RFC 9110 (15.5.6) asks for those of the path.
        routes = (route for route in iter_route_contexts(request.app.routes) if route.matches(request.scope)[0].value)
        methods = {method for route in routes for method in route.methods or ()}
        headers = {"Allow": ", ".join(sorted(methods))} if methods else headers
    return problem(request.scope, error.status_code, error.detail, headers=headers)


def _field_problem(item: Mapping[str, Any]) -> FieldProblem:
    place, message = item["loc"], item["msg"].removeprefix("Value error, ")
    if item["type"] == "json_invalid":
        place, message = place[:1], f"This is not JSON: {item['ctx']['error']} (character {place[-1]})"
    elif item["type"] == "model_attributes_type":
        message = "This must be a JSON object, sent with Content-Type: application/json"
    return FieldProblem(field=".".join(map(str, place))[:200], code=item["type"], message=message)


async def _validation_error(request: Request, error: RequestValidationError) -> Response:
    errors = [_field_problem(item) for item in error.errors()[:100]]
    detail = f"{errors[0].field}: {errors[0].message}" if errors else "The request is not valid."
    return problem(request.scope, 422, detail, code="validation_error", errors=errors)


ERROR_HANDLERS: dict[type[Exception], Any] = {
    AppError: _app_error,
    HTTPException: _http_error,
    RequestValidationError: _validation_error,
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe problem responses for OpenAPI: `responses=responses(404, 409)`."""
    return {
        status: {
            "description": RENAMED.get(status) or HTTPStatus(status).phrase,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
