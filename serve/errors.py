"""Errors as clients of the OpenAI protocol know them."""

import math
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error",
         404: "invalid_request_error", 405: "invalid_request_error", 408: "timeout", 413: "invalid_request_error",
         429: "requests", 500: "server_error", 503: "server_error"}
"""The type of an error where nothing more is known."""

TAGS = ("str", "int", "float", "bool")
"""Names of types, which are no fields."""


class ApiError(HTTPException):
    """An answer that is an error.

    message: for a person. param: the field that is wrong. code: for a program. kind: the error's type. retry: seconds
    after which to try again.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 kind: str | None = None, retry: float | None = None) -> None:
        headers = {}
        if retry is not None:
            seconds, thousandths = (str(max(1, math.ceil(time))) for time in (retry, retry * 1000))
            headers = {"retry-after": seconds, "retry-after-ms": thousandths}
        super().__init__(status, message, headers)
        self.body = body(status, message, param=param, code=code, kind=kind)


def body(status: int, message: str, *, param: str | None = None, code: str | None = None,
         kind: str | None = None) -> dict[str, Any]:
    """The JSON object of an error."""
    return {"error": {"message": message, "type": kind or TYPES.get(status, "invalid_request_error"), "param": param,
                      "code": code}}


def of_exception(error: HTTPException) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Status, body and headers of whatever the framework, or we, raise."""
    if isinstance(error, ApiError):
        return error.status_code, error.body, error.headers or {}
    return error.status_code, body(error.status_code, str(error.detail)), error.headers or {}


def of_validation(error: RequestValidationError) -> ApiError:
    """A 400 that names the field; only the first one that is wrong.

    Of a field that may have several types, what is wrong beyond the type says more.
    """
    first, *others = error.errors()
    if first["type"].endswith("_type"):
        first = next((e for e in others if e["loc"][:2] == first["loc"][:2] and not e["type"].endswith("_type")), first)
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    path = [part for part in first["loc"][1:] if isinstance(part, int) or (part not in TAGS and "[" not in part)]
    param = ".".join(str(part) for part in path) or None
    if first["type"] == "missing" and not path:
        return ApiError(400, "the request has no body: send a JSON object")
    if not path:
        return ApiError(400, "the body must be a JSON object, and the header Content-Type must say application/json")
    return ApiError(400, f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}", param=param)
