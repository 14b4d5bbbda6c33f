"""`python -m logto_asgi`: the commands of `logto_asgi.cli`."""

import sys

if __name__ == "__main__":
    from logto_asgi.cli import main

    sys.exit(main())
