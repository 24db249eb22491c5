"""The measures of drift: each is declared once, next to what computes it."""
