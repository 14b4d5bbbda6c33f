"""Sessions that lie in a store, and how the processes that share it take turns. The cookie holds a signed id."""
