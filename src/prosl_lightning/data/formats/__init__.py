"""Every format that skeletons are kept in, opened as one :class:`~prosl_lightning.data.source.Source`."""

from prosl_lightning.data.formats.detect import FORMATS, open_source

__all__ = ["FORMATS", "open_source"]
