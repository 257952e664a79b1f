"""What goes wrong with a request, and how each dialect says it."""

from typing import Any, NamedTuple


class _Kind(NamedTuple):
    """Of one code: status and type for OpenAI's clients, status and type for TEI's."""

    status: int
    type: str
    tei_status: int
    tei_type: str


_INVALID = "invalid_request_error"
KINDS = {
    "bad_json": _Kind(400, _INVALID, 400, "Validation"),
    "bad_value": _Kind(400, _INVALID, 422, "Validation"),
    "empty_input": _Kind(400, _INVALID, 400, "Empty"),
    "too_many_texts": _Kind(400, _INVALID, 413, "Validation"),
    "too_many_tokens": _Kind(400, _INVALID, 413, "Validation"),
    "text_too_long": _Kind(400, _INVALID, 422, "Validation"),
    "foreign_token_ids": _Kind(400, _INVALID, 422, "Tokenizer"),
    "wrong_model_kind": _Kind(400, _INVALID, 424, "Backend"),
    "invalid_api_key": _Kind(401, "authentication_error", 401, "Validation"),
    "origin_not_allowed": _Kind(403, "permission_error", 403, "Validation"),
    "host_not_allowed": _Kind(403, "permission_error", 403, "Validation"),
    "not_found": _Kind(404, "not_found_error", 404, "Validation"),
    "model_not_found": _Kind(404, "not_found_error", 404, "Validation"),
    "method_not_allowed": _Kind(405, _INVALID, 405, "Validation"),
    "body_timeout": _Kind(408, _INVALID, 408, "Validation"),
    "body_too_large": _Kind(413, _INVALID, 413, "Validation"),
    "unsupported_media_type": _Kind(415, _INVALID, 415, "Validation"),
    "headers_too_large": _Kind(431, _INVALID, 431, "Validation"),
    "overloaded": _Kind(429, "rate_limit_error", 429, "Overloaded"),
    "loading": _Kind(503, "service_unavailable_error", 503, "Unhealthy"),
    "draining": _Kind(503, "service_unavailable_error", 503, "Unhealthy"),
    "timeout": _Kind(503, "service_unavailable_error", 503, "Overloaded"),
    "non_finite": _Kind(500, "internal_error", 500, "Backend"),
    "internal_error": _Kind(500, "internal_error", 500, "Backend"),
}
REJECTED = {
    "overloaded": "overloaded",
    "timeout": "timeout",
    "draining": "draining",
    "body_too_large": "too_large",
    "too_many_texts": "too_large",
    "too_many_tokens": "too_large",
    "headers_too_large": "too_large",
    "invalid_api_key": "auth",
    "origin_not_allowed": "origin",
    "host_not_allowed": "origin",
}
"""The reason by which the metrics count a code."""


class ApiError(Exception):
    """A request cannot be answered as asked.

    Attributes:
        code: one of KINDS.
        param: the field that is meant, with its index: "input.3".
        retry_after: whole seconds after which to ask again.
        headers: more headers of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param, self.retry_after, self.headers = code, message, param, retry_after, headers

    def status(self, tei: bool) -> int:
        """The HTTP status in a dialect."""
        kind = KINDS[self.code]
        return kind.tei_status if tei else kind.status

    def body(self, tei: bool) -> dict[str, Any]:
        """The JSON of the answer in a dialect."""
        kind = KINDS[self.code]
        if tei:
            return {"error": self.message, "error_type": kind.tei_type}
        return {"error": {"message": self.message, "type": kind.type, "param": self.param, "code": self.code}}

    def extra_headers(self) -> list[tuple[str, str]]:
        """The headers of the answer beside every answer's."""
        found = list(self.headers)
        if self.retry_after is not None:
            found.append(("retry-after", str(self.retry_after)))
        if self.code == "non_finite":
            found.append(("x-should-retry", "false"))
        if self.code == "invalid_api_key":
            found.append(("www-authenticate", "Bearer"))
        return found


class DisconnectedError(Exception):
    """The client hung up."""
