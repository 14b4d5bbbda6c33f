"""What the other files run with where there is no Logto: a provider on this machine, which asks for no password.

    uvicorn provider:app --port 3001

README.md beside this file has the settings that go with it. It is for development only.
"""

from logto_asgi.testing import Client, DevelopmentProvider

SHOP, STOCK = "https://shopping.example.com/api", "https://stock.example.com/api"
SITE = "http://localhost:8000"

web_app = Client(
    app_id="my-app",
    app_secret="any secret",
    redirect_uris=[f"{SITE}/logto/sign-in-callback"],
    post_logout_redirect_uris=[f"{SITE}/"],
)
machine = Client(
    app_id="my-machine",
    app_secret="any secret",
    machine=True,
    permissions={SHOP: ["write:items"], STOCK: ["read:stock", "write:stock"]},
)
app = DevelopmentProvider(
    clients=[web_app, machine],
    resources={SHOP: ["read:items", "write:items"], STOCK: ["read:stock", "write:stock"]},
)

token = app.mint_access_token("alice", resource=SHOP, client_id="phone", scopes=["read:items"])
print(f"A token of Alice's for api.py:\n\n{token}\n")
