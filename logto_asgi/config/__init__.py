"""`LogtoConfig`: from code or `LOGTO_*` variables, checked once, secrets never shown. It knows no network."""

from __future__ import annotations

from logto_asgi.config.fields import ConfigArguments, Row, configuration_reference
from logto_asgi.config.model import LogtoConfig
from logto_asgi.config.values import is_loopback

__all__ = ["ConfigArguments", "LogtoConfig", "Row", "configuration_reference", "is_loopback"]
