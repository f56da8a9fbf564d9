"""Manifest, plan, score, reduce: the cohort pipeline on Ray Data."""
