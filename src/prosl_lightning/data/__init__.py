"""Raw files to one archive to batches on the device.

An importer opens files as a `Source`: `ntu_source`, `pku_source`, or the one in `formats/` that `formats/detect` finds.
It yields each recording as a `RawSequence`, or the reason why it cannot be used. `conversion` normalises them by a
recipe (`recipes`) and writes them through `archive_writer`; `prepare` and `pool` are the verbs. `archive` reads the
result, `datamodule` makes batches of it, `inspection` and `faults` look for what is wrong.
"""
