from fastapi import FastAPI

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser
from logto_asgi.fastapi import CurrentUser, SignedIn, auth_router

config = LogtoConfig()  # reads LOGTO_ENDPOINT, LOGTO_APP_ID, … from the environment or .env
app = FastAPI()
app.add_middleware(LogtoMiddleware, config=config)  # a user on every request and WebSocket
app.include_router(auth_router(config))  # /logto/sign-in, sign-up, sign-in-callback, sign-out


@app.get("/")
async def home(user: CurrentUser) -> dict[str, str]:
    return {"hello": user.display_name} if user.is_authenticated else {"sign_in": "/logto/sign-in"}


@app.get("/profile")
async def profile(user: SignedIn) -> LogtoUser:
    return user  # claims, scopes, organizations; never a token
