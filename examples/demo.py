"""The site of `python -m logto_asgi demo`, at your own Logto instead of the development provider.

    uvicorn demo:app

Set the `LOGTO_*` variables; with an API in `LOGTO_RESOURCES` its token page shows a token for it.
"""

from logto_asgi import Logto, LogtoConfig
from logto_asgi.testing.demo import demo_site

app = demo_site(Logto(LogtoConfig()))
