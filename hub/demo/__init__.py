"""`farebox-hub demo`: a hub and three buses on one machine, to tap on, cut off, kill and see agree again."""

from hub.demo.command import main

__all__ = ["main"]
