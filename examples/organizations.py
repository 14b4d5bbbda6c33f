"""Organizations: one app, many customers. Who belongs to which, and who may do what there.

    uvicorn organizations:app

The organization is part of the address, so switching is a link. Pages use the session; the endpoints below
`/api` take the session or a bearer token, so that a phone can call them as well.

In Logto's console: organizations with members, the roles `admin` and `member` in the organization template, the
organization permission `manage:members` for `admin`, and the API resource with its permissions for both.
"""

from html import escape
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser, UserScope
from logto_asgi.fastapi import AUTH_RESPONSES, SignedIn, auth_router, require_auth

RESOURCE = "https://shopping.example.com/api"
config = LogtoConfig(
    api_resource=RESOURCE,
    scopes=[UserScope.ORGANIZATIONS, UserScope.ORGANIZATION_ROLES, "read:items", "write:items", "manage:members"],
)
app = FastAPI()
app.add_middleware(LogtoMiddleware, config=config)
app.include_router(auth_router(config))

ORG = "{org_id}"  # the path parameter of that name
# By membership and by role, for pages: what the user's ID token says of each organization.
Member = Annotated[LogtoUser, Depends(require_auth(organization=ORG))]
Admin = Annotated[LogtoUser, Depends(require_auth(organization=ORG, organization_roles=["admin"]))]
# By permission, for the API: what the access token for this organization says.
Manager = Annotated[
    LogtoUser, Depends(require_auth(accept=("session", "bearer"), organization=ORG, scopes=["manage:members"]))
]
Reader = Annotated[
    LogtoUser,
    Depends(require_auth(accept=("session", "bearer"), organization=ORG, resource=RESOURCE, scopes=["read:items"])),
]

shelves: dict[str, list[str]] = {}


@app.get("/", response_class=HTMLResponse)
async def home(user: SignedIn) -> str:
    return await page(user, "Choose an organization.")


@app.get("/organizations/{org_id}", response_class=HTMLResponse)
async def organization(org_id: str, user: Member) -> str:
    return await page(user, f"{len(shelves.get(org_id, []))} items. You are a member.", current=org_id)


@app.get("/organizations/{org_id}/settings", response_class=HTMLResponse)
async def settings(org_id: str, user: Admin) -> str:
    return await page(user, "Settings, for administrators of this organization.", current=org_id)


@app.get("/api/organizations/{org_id}/items", responses=AUTH_RESPONSES)
async def items(org_id: str, user: Reader) -> list[str]:
    return shelves.get(org_id, [])


@app.post("/api/organizations/{org_id}/invitations", responses=AUTH_RESPONSES)
async def invite(org_id: str, email: str, user: Manager) -> dict[str, str]:
    return {"invited": email, "to": org_id, "by": user.identity}


async def page(user: LogtoUser, text: str, current: str | None = None) -> str:
    """Return a page with a link for each organization of the user; their names come from the userinfo."""
    info = await user.fetch_user_info()
    names = {each.id: each.name or each.id for each in info.organization_data or ()}
    links = [
        f"<b>{escape(names.get(each, each))}</b>"
        if each == current
        else f'<a href="/organizations/{escape(each)}">{escape(names.get(each, each))}</a>'
        for each in user.organizations
    ]
    return f"""<!doctype html><title>Organizations</title><p>Hello, {escape(user.display_name)}.</p>
<nav>{" | ".join(links) or "You belong to no organization."}</nav>
<p>{escape(text)}</p><p><a href="/logto/sign-out">Sign out</a></p>"""
