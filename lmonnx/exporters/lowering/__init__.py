"""The rules, the table of them, and the engine that applies them."""
