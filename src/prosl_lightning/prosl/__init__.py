"""The method, to be read in this order.

`losses` (the equations), `memory_bank`, `codebook` and `kmeans`, `branches`,
`importance`, `objective` (which losses a step adds up), `module` (the training), `callback` (between epochs).
"""
