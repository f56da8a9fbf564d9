"""Hotspots and mitotic counts."""
