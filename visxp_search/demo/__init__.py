"""The demo: a small archive rendered by our own code, indexed, searched and checked against what is known of it."""
