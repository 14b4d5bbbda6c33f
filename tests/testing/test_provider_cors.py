"""Facts about CORS at the development provider: pages of public apps may call it, and no others."""

from __future__ import annotations

import pytest
from provider_visitor import CALLBACK, VERIFIER

from logto_asgi.testing import Client

PAGE = "https://page.example.com"
DISCOVERY = "/oidc/.well-known/openid-configuration"
SHARED = [(DISCOVERY, "GET"), ("/oidc/jwks", "GET"), ("/oidc/token", "POST"), ("/oidc/me", "GET")]
OTHERS = ["/oidc/auth", "/oidc/token/revocation", "/oidc/token/introspection", "/oidc/session/end"]


@pytest.fixture
def visitor(visit):
    """Somebody at a provider that knows a page, and a web app elsewhere."""
    someone = visit("spa")
    someone.provider.add_client(Client("page", None, [PAGE + "/callback", "my.app:/callback"]))
    someone.provider.add_client(Client("server", "secret", ["https://server.example.com/callback"]))
    return someone


def preflight(visitor, path, origin=PAGE, method="POST"):
    """Ask as a browser does before a request with a header of its own."""
    headers = {"Origin": origin, "Access-Control-Request-Method": method}
    return visitor.http.options(path, headers=headers | {"Access-Control-Request-Headers": "authorization"})


@pytest.mark.parametrize(("path", "method"), SHARED)
def test_a_page_of_a_public_app(visitor, path, method):
    """Its preflight passes and its answers can be read, refusals too; cookies never go along."""
    answer = preflight(visitor, path, method=method)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert method in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    real = visitor.http.request(method, path, headers={"Origin": PAGE})
    assert real.headers["access-control-allow-origin"] == PAGE
    assert "origin" in real.headers["vary"].lower()
    assert "access-control-allow-credentials" not in real.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "https://server.example.com", "null", PAGE + ".evil.example"]
)
@pytest.mark.parametrize(("path", "method"), SHARED)
def test_a_page_of_nobody(visitor, path, method, origin):
    """Neither the preflight nor the answer allows it, a confidential app's origin included."""
    for answer in (
        preflight(visitor, path, origin, method),
        visitor.http.request(method, path, headers={"Origin": origin}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("path", OTHERS)
def test_other_endpoints(visitor, path):
    """They answer no page."""
    for answer in (preflight(visitor, path), visitor.http.post(path, headers={"Origin": PAGE})):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_signs_in_by_itself(visitor):
    """The code flow of a public app, with the token request sent by its page."""
    form = {"grant_type": "authorization_code", "client_id": "spa", "code": visitor.code()}
    form |= {"redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    answer = visitor.http.post("/oidc/token", data=form, headers={"Origin": "http://localhost:8000"})
    assert answer.json()["access_token"]
    assert answer.headers["access-control-allow-origin"] == "http://localhost:8000"


def test_preflights_are_not_counted(visitor):
    """The log has what the page did."""
    preflight(visitor, "/oidc/token")
    assert visitor.provider.requests.count("token") == 0
