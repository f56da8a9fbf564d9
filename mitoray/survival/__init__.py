"""From counts and clinical tables to survival: Kaplan–Meier, Cox, cut points with an honest p, continuous models."""
