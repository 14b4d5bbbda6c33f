"""One issuer for all tests of this directory: its keys, its documents and the configurations of its apps."""

from __future__ import annotations

from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from oidc_signing import APP_ID, ENDPOINT, NONCE, NOW, SECRET, discovery_document

from logto_asgi.config import LogtoConfig
from logto_asgi.models import PendingSignIn
from logto_asgi.oidc.keys import KeySet, parse_key_set
from logto_asgi.oidc.metadata import ProviderMetadata, parse_metadata

_ARGUMENTS: dict[str, Any] = {
    "app_id": APP_ID,
    "base_url": "https://shop.example.com",
    "cookie_secret": "Zk3vQ8yT1mB6xR0sN5wJ9dG2hL7cF4pK-aUeVoXi",
}


@pytest.fixture(scope="session")
def private_keys() -> dict[str, Any]:
    """Return one private key for every name that the tables use; `rsa` has no `alg`, as Logto's."""
    return {
        "es256": ECKey.generate_key("P-256", {"kid": "es256", "alg": "ES256", "use": "sig"}),
        "es384": ECKey.generate_key("P-384", {"kid": "es384", "alg": "ES384", "use": "sig"}),
        "es512": ECKey.generate_key("P-521", {"kid": "es512", "alg": "ES512", "use": "sig"}),
        "rsa": RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"}),
        "rsa-2": RSAKey.generate_key(2048, {"kid": "rsa-2", "use": "sig"}),
        "ed": OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"}),
        "stranger": ECKey.generate_key("P-384", {"kid": "es384", "alg": "ES384"}),
        "unpublished": ECKey.generate_key("P-384", {"kid": "unpublished", "alg": "ES384"}),
        "hmac": OctKey.import_key(SECRET, {"kid": "es384"}),
    }


@pytest.fixture(scope="session")
def jwks(private_keys: dict[str, Any]) -> dict[str, Any]:
    """Return the issuer's key set as it is published."""
    published = ("es256", "es384", "es512", "rsa", "rsa-2", "ed")
    return {"keys": [private_keys[name].as_dict(private=False) for name in published]}


@pytest.fixture(scope="session")
def keys(jwks: dict[str, Any]) -> KeySet:
    """Return the issuer's key set as the library reads it."""
    return parse_key_set(jwks)


@pytest.fixture
def metadata() -> ProviderMetadata:
    """Return what the issuer says about itself."""
    return parse_metadata(discovery_document(), issuer=f"{ENDPOINT}/oidc")


@pytest.fixture
def config() -> LogtoConfig:
    """Return the configuration of a confidential app at a Logto."""
    return LogtoConfig(endpoint=ENDPOINT, app_secret=SECRET, **_ARGUMENTS)


@pytest.fixture
def other_config() -> LogtoConfig:
    """Return the configuration of an app at an issuer that is no Logto."""
    return LogtoConfig(issuer=f"{ENDPOINT}/oidc", app_secret=SECRET, **_ARGUMENTS)


@pytest.fixture
def public_config() -> LogtoConfig:
    """Return the configuration of an app without a secret."""
    return LogtoConfig(endpoint=ENDPOINT, **_ARGUMENTS)


@pytest.fixture
def pending() -> PendingSignIn:
    """Return an attempt to sign in that waits for its call-back."""
    return PendingSignIn(
        state="state-of-this-browser",
        nonce=NONCE,
        code_verifier="v" * 43,
        redirect_uri="https://shop.example.com/logto/sign-in-callback",
        return_to="/",
        created_at=NOW,
    )
