"""Annotation files in, one label table out."""
