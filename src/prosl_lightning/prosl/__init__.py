"""The method, to be read in this order.

`losses` (the equations), `memory_bank`, `base` (what a contrastive method supplies), `codebook` and `kmeans`,
`importance`, `objective` (which losses a step adds up), `module` (the training), `callback` (between epochs).
"""
