"""Sign-in with Logto, or any other OpenID Connect issuer, for Starlette and FastAPI."""
