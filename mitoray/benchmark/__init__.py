"""How fast mitoray is on a machine, beside what others and the bare parts do there."""
