"""The method: contrast, semantic codebook, joint importance, and the module that trains them."""
