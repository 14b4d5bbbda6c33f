"""Remembers a signed-in browser. Knows no OpenID Connect, no request and no response."""
