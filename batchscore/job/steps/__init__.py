"""The steps after the model: each is declared once, settings and function together."""
