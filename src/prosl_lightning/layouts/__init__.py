"""Skeleton layouts shipped with the library, one YAML file each."""
