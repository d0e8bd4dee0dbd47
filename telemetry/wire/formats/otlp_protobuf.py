"""The format `otlp-protobuf`: OTLP/HTTP logs in protobuf's binary form. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from telemetry.wire.batch import Rejection
from telemetry.wire.formats import otlp, protobuf
from telemetry.wire.formats.otlp import VERSION


__all__ = ["VERSION", "body_of", "refusals"]


def body_of(events: Sequence[bytes]) -> bytes:
    """The body that carries these events."""
    return protobuf.encode("Request", otlp.request_of(events))


def refusals(body: bytes, headers: Mapping[str, str]) -> tuple[Rejection, ...] | None:
    """The events that a complete 2xx refused; None if it acknowledges nothing.

    An answer that does not call itself protobuf is read as that to `otlp-json` is: some
    receivers, and what stands before them, answer in JSON or in words.
    """
    if "protobuf" not in headers.get("content-type", "").lower():
        return otlp.refusals(body, headers)
    try:
        response = protobuf.decode("Response", body)
    except ValueError:
        return None
    return otlp.refusals_in({name: [value] for name, value in response.items()})


def said(body: bytes, headers: Mapping[str, str]) -> bytes:
    """What an error says to a person: the message of a google.rpc.Status."""
    if "protobuf" not in headers.get("content-type", "").lower():
        return body
    try:
        message: str = protobuf.decode("Status", body).get("message", "")
    except ValueError:
        return body
    return message.encode()
