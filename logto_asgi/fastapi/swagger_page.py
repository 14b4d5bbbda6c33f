"""The two pages of Swagger UI: the one that shows it, and the one that a sign-in comes back to.

It writes HTML and the headers that go with it. It knows no request, no document and no token: those stay in the page.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

__all__ = ["SWAGGER_CSS_URL", "SWAGGER_JS_URL", "redirect_page", "swagger_page"]

_DIST = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5.35.0"
SWAGGER_JS_URL = f"{_DIST}/swagger-ui-bundle.js"
SWAGGER_CSS_URL = f"{_DIST}/swagger-ui.css"

# The page holds an access token: a file that somebody has changed at the CDN must not run there.
_INTEGRITY = {
    SWAGGER_JS_URL: "sha384-gjRm0bEPMeTmMh5jT2cHccIwCUZSTd8YC+j0d0sXw0MdGEfScduGpSyF3ZSSLkX9",
    SWAGGER_CSS_URL: "sha384-WlYgdmXYOOBWL5apwjDEZwN+U3HmXSSu5R6V5aGxEcf7z+KuRNwBhoxKVN1i3D5I",
}

# Swagger UI puts `additionalQueryStringParams` into the query of the token request too, where nobody reads them: they
# belong into its body (RFC 8707 §2.2). `X-Requested-With` would make the browser ask first (a CORS preflight).
_SHOW = """
"use strict";
(() => {
  const settings = JSON.parse(document.getElementById("settings").textContent);
  if (settings.origin && location.origin !== settings.origin) {
    location.replace(settings.origin + location.pathname + location.search + location.hash);
    return;
  }
  if (typeof SwaggerUIBundle === "undefined") {
    document.getElementById("swagger-ui").textContent = "Swagger UI did not load. The browser's console says why.";
    return;
  }
  const absolute = (path) => new URL(path, location.origin + location.pathname).href;
  const requestInterceptor = (request) => {
    if (String(request.url).split("?")[0] !== settings.tokenEndpoint) return request;
    const form = new URLSearchParams(request.body);
    form.set("resource", settings.resource);
    delete request.headers["X-Requested-With"];
    return Object.assign(request, {url: settings.tokenEndpoint, body: form.toString()});
  };
  const ui = SwaggerUIBundle({
    url: absolute(settings.openapi),
    oauth2RedirectUrl: absolute(settings.redirect),
    dom_id: "#swagger-ui",
    deepLinking: true,
    persistAuthorization: false,
    validatorUrl: null,
    requestInterceptor,
  });
  ui.initOAuth({
    clientId: settings.clientId,
    scopes: settings.scopes,
    usePkceWithAuthorizationCodeGrant: true,
    additionalQueryStringParams: {resource: settings.resource},
  });
})();
"""

# As Swagger UI's own page, but another `state` or issuer ends the sign-in (RFC 6749 §10.12, RFC 9207 §2.4), and what
# an address says is shown by its code only.
_COME_BACK = """
"use strict";
(() => {
  const say = (text) => { document.querySelector("p").textContent = text; };
  let flow;
  try { flow = window.opener && window.opener.swaggerUIRedirectOauth2; } catch { flow = null; }
  if (!flow) return say("This page ends a sign-in that Swagger UI began. Go back to it and press Authorize again.");
  const {issuer} = JSON.parse(document.getElementById("settings").textContent);
  const answer = new URLSearchParams(location.search);
  const refuse = (message) => {
    flow.errCb({authId: flow.auth.name, source: "auth", level: "error", message});
    window.close();
  };
  if (!flow.state || answer.get("state") !== flow.state) return refuse("This answer belongs to another sign-in.");
  if (answer.has("iss") && answer.get("iss") !== issuer) return refuse("This answer comes from another issuer.");
  if (!answer.get("code")) {
    const code = (answer.get("error") || "").replace(/[^a-z_]/g, "");
    return refuse("The issuer refused: " + (code || "no code came") + ".");
  }
  delete flow.state;
  flow.auth.code = answer.get("code");
  flow.callback({auth: flow.auth, redirectUrl: flow.redirectUrl});
  window.close();
})();
"""

# A public client has no secret, and a page cannot set a cookie that scripts do not see: no fields for them.
_STYLE = """
body{margin:0}
body>p{font:1rem/1.5 system-ui,sans-serif;padding:2rem}
.wrapper:has(>label[for^=client_secret]),
form:has(a[href*="/sign-in?return_to="]) :is(.authorize,.wrapper:has(#api_key_value)){display:none}
"""


def swagger_page(
    settings: Mapping[str, Any], *, title: str, js_url: str, css_url: str, connect: Iterable[str]
) -> tuple[str, dict[str, str]]:
    """Return the page with Swagger UI, and its headers. `connect` lists the origins that it may call besides its own.

    `settings` are what the script above reads: addresses relative to the page, the client, the resource, the scopes.
    """
    body = f'<div id="swagger-ui"></div>{_data(settings)}<script src="{escape(js_url)}"{_pin(js_url)}></script>'
    link = f'<link rel="stylesheet" href="{escape(css_url)}"{_pin(css_url)}>'
    policy = {
        "script-src": [_digest(_SHOW), _source(js_url)],
        "style-src": [_source(css_url), _digest(_STYLE)],
        "style-src-attr": ["'unsafe-inline'"],  # Swagger UI writes such attributes into its markup
        "img-src": ["'self'", "data:"],
        "connect-src": ["'self'", *dict.fromkeys(connect)],
    }
    return _document(title, body, _SHOW, head=link), _headers(policy)


def redirect_page(settings: Mapping[str, Any], *, title: str) -> tuple[str, dict[str, str]]:
    """Return the page that hands the issuer's answer to the one that opened it, and its headers."""
    body = f"<p>Coming back …</p>{_data(settings)}"
    policy = {"script-src": [_digest(_COME_BACK)], "style-src": [_digest(_STYLE)], "img-src": ["data:"]}
    return _document(title, body, _COME_BACK), _headers(policy)


def _document(title: str, body: str, script: str, *, head: str = "") -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f'<link rel="icon" href="data:,">{head}<title>{escape(title)}</title><style>{_STYLE}</style></head>'
        f"<body>{body}<script>{script}</script></body></html>"
    )


def _data(settings: Mapping[str, Any]) -> str:
    """Return the settings as data that no text in them can end, for a script to read (HTML §4.12.1.3)."""
    text = json.dumps(settings).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="settings">{text}</script>'


def _headers(policy: Mapping[str, Iterable[str]]) -> dict[str, str]:
    directives = [
        "default-src 'none'",
        *(f"{name} {' '.join(sources)}" for name, sources in policy.items()),
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "; ".join(directives),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _source(url: str) -> str:
    """Return the source of a policy that allows a file, whose query does not count (CSP3 §6.7.2.8)."""
    return url.partition("?")[0] if url.startswith(("https://", "http://")) else "'self'"


def _pin(url: str) -> str:
    integrity = _INTEGRITY.get(url)
    return f' integrity="{integrity}" crossorigin="anonymous"' if integrity else ""
