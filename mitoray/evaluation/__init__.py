"""How well detections agree with labels: matching, curves, thresholds, tables."""
