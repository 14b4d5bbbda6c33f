"""A visitor and its app without a browser: walks the provider's pages with plain httpx, and calls its token endpoint.

It knows the protocol only as far as the provider's own tests need it, and nothing of the library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
from e2e_provider import APP_ID, APP_SECRET, Provider

REDIRECT_URI = "http://127.0.0.1:9/logto/sign-in-callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
Query = dict[str, Any]


def decode(token: str, part: int = 1) -> dict[str, Any]:
    """Return the header (0) or the claims (1) of a JWT, unverified."""
    encoded = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))


class Visitor:
    """One browser's cookies, and the confidential app that it visits."""

    def __init__(self, provider: Provider, *, app_id: str = APP_ID, app_secret: str | None = APP_SECRET) -> None:
        self.provider = provider
        self.app_id = app_id
        self.http = httpx.Client(base_url=provider.endpoint, verify=False, trust_env=False)
        self.app = httpx.Client(
            base_url=provider.issuer + "/",
            verify=False,
            trust_env=False,
            auth=httpx.BasicAuth(app_id, app_secret) if app_secret else None,
        )

    def close(self) -> None:
        self.http.close()
        self.app.close()

    def walk(self, response: httpx.Response, until: str = REDIRECT_URI) -> httpx.Response | str:
        """Follow redirects. Return the page that is shown, or the address at the app that it leads to."""
        while response.is_redirect:
            location = str(httpx.URL(response.headers["location"]))
            if location.startswith(until):
                return location
            response = self.http.get(response.url.join(location))
        return response

    def authorize(self, **parameters: Any) -> httpx.Response | str:
        """Ask for a code. Return the page that is shown, or where the browser is sent."""
        query = {
            "client_id": self.app_id,
            "redirect_uri": REDIRECT_URI,
            "response_type": "code",
            "scope": "openid offline_access profile",
            "state": "the-state",
            "nonce": "the-nonce",
            "prompt": "consent",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        } | parameters
        return self.walk(self.http.get("/oidc/auth", params={k: v for k, v in query.items() if v is not None}))

    def submit(self, page: httpx.Response, **fields: str) -> httpx.Response | str:
        """Send the page's form with the pressed button's name and value, and follow."""
        return self.walk(self.http.post(page.url, data=fields))

    def sign_in(self, sub: str = "alice", **parameters: Any) -> Query:
        """Sign in on the provider's page. Return the call-back's query."""
        page = self.authorize(**parameters)
        if isinstance(page, httpx.Response):
            page = self.submit(page, sub=sub)
        assert isinstance(page, str), page.text
        return query_of(page)

    def token(self, **form: Any) -> httpx.Response:
        """Call the token endpoint."""
        if self.app.auth is None:
            form["client_id"] = self.app_id
        return self.app.post("token", data=form)

    def exchange(self, code: str, **form: Any) -> Query:
        """Exchange a code for tokens."""
        answer = self.token(
            grant_type="authorization_code", code=code, redirect_uri=REDIRECT_URI, code_verifier=VERIFIER, **form
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def tokens(self, sub: str = "alice", **parameters: Any) -> Query:
        """Sign in and exchange the code."""
        return self.exchange(self.sign_in(sub, **parameters)["code"])

    def refresh(self, refresh_token: str, **form: Any) -> httpx.Response:
        """Use a refresh token."""
        return self.token(grant_type="refresh_token", refresh_token=refresh_token, **form)


def query_of(url: str) -> Query:
    """Return the query of a URL as a dict."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def form_of(page: httpx.Response) -> tuple[str, Query]:
    """Return the action and the hidden fields of the page's form."""
    action = re.search(r'action="([^"]+)"', page.text)
    assert action, page.text
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text)
    return action[1], dict(hidden)
