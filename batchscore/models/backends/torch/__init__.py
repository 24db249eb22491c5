"""The torch backend: a weights file to a network, and rows through it in calls of one shape."""
