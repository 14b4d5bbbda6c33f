"""Plain Starlette: a home page for everybody, a page for those who are signed in, and Starlette's own `@requires`.

uvicorn starlette_app:app
"""

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from logto_asgi import LogtoConfig, LogtoMiddleware, LogtoUser, RequireAuthMiddleware, auth_routes

config = LogtoConfig()


async def home(request: Request) -> Response:
    user: LogtoUser = request.state.user
    return JSONResponse({"hello": user.display_name or "visitor"})


async def profile(request: Request) -> Response:
    user: LogtoUser = request.state.user
    return JSONResponse(user.public().model_dump(mode="json"))


@requires("authenticated", redirect="logto:sign-in")
async def orders(request: Request) -> Response:
    return JSONResponse({"orders": [], "of": request.user.identity})


app = Starlette(
    routes=[
        Route("/", home),
        Route("/profile", profile, middleware=[Middleware(RequireAuthMiddleware)]),
        Route("/orders", orders),
        *auth_routes(config),
    ],
    middleware=[Middleware(LogtoMiddleware, config=config)],
)
