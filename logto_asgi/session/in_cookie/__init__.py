"""Sessions that lie whole in the browser's cookie, and what one process knows beyond it."""
