"""Better label tables: missed candidates, hard examples, and experts who decide on them blinded, two plus one.

Candidates become a review set (`review`), which experts get as files that say neither class nor score
(`review_files`). Their decisions come back by the candidates' ids (`decisions`), become votes (`votes`), and the votes
a new version of the label table, which never changes the old one (`versions`).

Labels are made consistent with each other by what a network makes of the cells (`cells`, `embedding`, `contrastive`):
those at odds with their neighbours are ranked (`neighbours`), and a map of all cells (`cell_grid`, `map_image`) is
relabelled by an expert (`map_files`).

Rescans take the labels of their original: it is registered (`registration_slides`, by `registration_coarse` and
`registration_refine`), its labels carried over, and figures masked that the rescan does not show (`rescans`).
"""
