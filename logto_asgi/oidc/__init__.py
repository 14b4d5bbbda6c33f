"""Speak OpenID Connect with the issuer. This package knows no ASGI, no cookie and no session."""

from __future__ import annotations
